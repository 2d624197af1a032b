"""The doctor looks at Kafka: brokers and their settings, topics, the group of electors, and what waits."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)
from joblog.services.doctor.doctor import Finding, fail, ok, warn
from joblog.services.settings.model import Settings
from joblog.streams.contract.topics import TOPICS, Topic
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import SESSION_TIMEOUT_S, TRANSACTION_TIMEOUT_S

_TIMEOUT_S: Final = 5
LAG_MAX: Final = 10_000
Config = Mapping[str, str]


def examine_kafka(settings: Settings) -> Iterator[Finding]:
    """All about Kafka; if no broker answers, there is nothing else to look at."""
    client = clients.admin(settings.kafka.config(), f"{settings.topic_prefix}doctor")
    try:
        cluster = client.list_topics(timeout=_TIMEOUT_S)
    except KafkaException as exc:
        yield fail(
            "brokers",
            f"{settings.kafka.bootstrap_servers} does not answer: {exc.args[0].str()}",
            "start the broker (`joblog up`), or set JOBLOG_KAFKA__BOOTSTRAP_SERVERS and the security settings",
        )
        return
    yield ok("brokers", f"{len(cluster.brokers)} at {settings.kafka.bootstrap_servers}, cluster {cluster.cluster_id}")
    yield from _broker_settings(client, cluster)
    there = [topic for topic in TOPICS if settings.names.of(topic) in cluster.topics]
    yield from _partitions(settings, cluster)
    yield from _topic_settings(client, settings, cluster, there)
    if len(there) == len(TOPICS):
        yield from _group(client, settings, "electors", "elector", "joblog elector", ("commands", "reports"))
        delays = tuple(topic.name for topic in TOPICS if topic.name.startswith("delay."))
        yield from _group(client, settings, "delays", "delays process", "joblog delays", delays)
        yield from _dead_letters(client, settings, cluster)


def _broker_settings(client: AdminClient, cluster: ClusterMetadata) -> Iterator[Finding]:
    broker = next(iter(cluster.brokers))
    found = _configs(client, ResourceType.BROKER, [str(broker)])[str(broker)]
    wrong = list(broker_findings(found))
    yield from wrong
    if not wrong:
        yield ok("broker settings", "no topics by accident, no unclean leaders, time-outs wide enough")


def broker_findings(found: Config) -> Iterator[Finding]:
    """What is wrong with a broker's settings."""

    def number(name: str, default: int) -> int:
        return int(found.get(name, default))

    if found.get("auto.create.topics.enable") == "true":
        yield warn(
            "auto.create.topics.enable",
            "a mistyped topic is created with the wrong partitions, and nobody reads it",
            "set auto.create.topics.enable=false on the brokers",
        )
    if found.get("unclean.leader.election.enable") == "true":
        yield fail(
            "unclean.leader.election.enable",
            "acknowledged records can be lost when a broker dies",
            "set unclean.leader.election.enable=false on the brokers",
        )
    if number("group.min.session.timeout.ms", 6_000) > SESSION_TIMEOUT_S * 1000:
        yield fail(
            "group.min.session.timeout.ms",
            f"the brokers refuse a session of {SESSION_TIMEOUT_S} s, so no elector can join",
            f"set group.min.session.timeout.ms={SESSION_TIMEOUT_S * 1000} or less on the brokers",
        )
    if number("transaction.max.timeout.ms", 900_000) < TRANSACTION_TIMEOUT_S * 1000:
        yield fail(
            "transaction.max.timeout.ms",
            f"the brokers refuse transactions of {TRANSACTION_TIMEOUT_S} s",
            f"set transaction.max.timeout.ms={TRANSACTION_TIMEOUT_S * 1000} or more on the brokers",
        )
    if number("offsets.retention.minutes", 10_080) < 10_080:
        yield warn(
            "offsets.retention.minutes",
            "a group that stands still for so long forgets where it was",
            "set offsets.retention.minutes=10080 or more on the brokers",
        )


def _partitions(settings: Settings, cluster: ClusterMetadata) -> Iterator[Finding]:
    missing = [settings.names.of(topic) for topic in TOPICS if settings.names.of(topic) not in cluster.topics]
    if missing:
        yield fail("topics", f"missing: {', '.join(missing)}", "joblog topics create")
    wrong = [
        f"{name} has {found}, not {wanted}"
        for topic in TOPICS
        if (name := settings.names.of(topic)) in cluster.topics
        and (found := len(cluster.topics[name].partitions)) != (wanted := topic.partitions or settings.lanes)
    ]
    if wrong:
        yield fail(
            "partitions", "; ".join(wrong), "set JOBLOG_LANES to what the topics have, or choose another topic_prefix"
        )
    if not missing and not wrong:
        yield ok("topics", f"all {len(TOPICS)} are there, with {settings.lanes} lanes")


def _topic_settings(
    client: AdminClient, settings: Settings, cluster: ClusterMetadata, there: Sequence[Topic]
) -> Iterator[Finding]:
    by_name = {settings.names.of(topic): topic for topic in there}
    if not by_name:
        return
    configs = _configs(client, ResourceType.TOPIC, list(by_name))
    before = 0
    for name, topic in by_name.items():
        for finding in topic_findings(name, topic, configs[name], cluster.topics[name], len(cluster.brokers)):
            before += 1
            yield finding
    if not before:
        yield ok("topic settings", "retention, compaction, timestamps and copies are as they should be")


def topic_findings(name: str, topic: Topic, config: Config, metadata: Any, brokers: int) -> Iterator[Finding]:
    """What is wrong with one topic."""
    for key, wanted in topic.configuration().items():
        if key in config and config[key] != wanted:
            judge = fail if key in {"cleanup.policy", "message.timestamp.type"} else warn
            yield judge(
                name,
                f"{key} is {config[key]}, not {wanted}",
                f"kafka-configs --alter --topic {name} --add-config {key}={wanted}",
            )
    copies = min(len(partition.replicas) for partition in metadata.partitions.values())
    in_sync = min(len(partition.isrs) for partition in metadata.partitions.values())
    if in_sync < copies:
        yield warn(name, f"only {in_sync} of {copies} copies are in sync", "look at the brokers that are missing")
    if brokers >= 3 and copies < 3:
        yield warn(
            name, f"{copies} copies on {brokers} brokers", "reassign it to 3 copies with min.insync.replicas=2"
        )
    least = int(config.get("min.insync.replicas", 1))
    if least >= copies > 1:
        yield fail(
            name,
            f"min.insync.replicas is {least} with {copies} copies: one broker's end stops all writes",
            f"set min.insync.replicas={copies - 1}",
        )
    if copies >= 3 and least < 2:
        yield warn(name, "a write counts with one copy", f"set min.insync.replicas={copies - 1}")


def _group(
    client: AdminClient, settings: Settings, group: str, who: str, command: str, topics: tuple[str, ...]
) -> Iterator[Finding]:
    name = f"{settings.topic_prefix}{group}"
    found = client.describe_consumer_groups([name], request_timeout=_TIMEOUT_S)[name].result()
    if not found.members:
        yield fail(group, f"no {who} runs", command)
    else:
        yield ok(group, f"{len(found.members)} running, group {found.state.name.lower()}")
    lag = sum(_lags(client, name, [f"{settings.topic_prefix}{topic}" for topic in topics], settings.lanes).values())
    if lag > LAG_MAX:
        yield warn(f"{group} lag", f"{lag} records are not read yet", f"start another: {command}; look at its log")
    else:
        yield ok(f"{group} lag", _at_most(lag))


def _lags(client: AdminClient, group: str, topics: list[str], lanes: int) -> dict[tuple[str, int], int]:
    """How many records of each partition the group has not read; those of a partition never read all count."""
    wanted = [TopicPartition(topic, lane) for topic in topics for lane in range(lanes)]
    asked = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=_TIMEOUT_S)
    committed = {(one.topic, one.partition): one.offset for one in asked[group].result().topic_partitions}
    low, high = _ends(client, wanted)
    return {place: max(high[place] - max(committed.get(place, 0), low[place]), 0) for place in high}


def _dead_letters(client: AdminClient, settings: Settings, cluster: ClusterMetadata) -> Iterator[Finding]:
    topic = settings.names.deadletters
    low, high = _ends(client, [TopicPartition(topic, number) for number in cluster.topics[topic].partitions])
    count = sum(high[place] - low[place] for place in high)
    if count:
        yield warn("dead letters", f"{_at_most(count)}, that could not be processed", "joblog deadletters list")
    else:
        yield ok("dead letters", "none")


def _at_most(count: int) -> str:
    """A number of offsets as a number of records: the end of each transaction has an offset, too."""
    return f"at most {count} records (ends of transactions count)" if count else "none"


def _ends(client: AdminClient, places: list[TopicPartition]) -> tuple[dict[Any, int], dict[Any, int]]:
    """The first and the next offset of each partition."""

    def asked(spec: OffsetSpec) -> dict[Any, int]:
        futures = client.list_offsets(dict.fromkeys(places, spec), request_timeout=_TIMEOUT_S)
        return {(place.topic, place.partition): future.result().offset for place, future in futures.items()}

    return asked(OffsetSpec.earliest()), asked(OffsetSpec.latest())  # type: ignore[no-untyped-call]


def _configs(client: AdminClient, kind: ResourceType, names: list[str]) -> dict[str, Config]:
    asked = client.describe_configs([ConfigResource(kind, name) for name in names], request_timeout=_TIMEOUT_S)
    return {
        resource.name: {name: entry.value for name, entry in future.result().items() if entry.value is not None}
        for resource, future in asked.items()
    }
