"""Checks of Kafka: brokers and their settings, topics, consumer groups, backlogs and dead letters."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException, Message, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)
from joblog.services.doctor.doctor import Finding, fail, ok, warn
from joblog.services.doctor.lanes import examine_lanes
from joblog.services.settings.model import Settings
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.contract.topics import COMMANDS, DELAYS, REPORTS, TOPICS, Topic, TopicNames
from joblog.streams.errors import InternalError
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import topic_settings
from joblog.streams.kafka.clients import SESSION_TIMEOUT_S, TRANSACTION_TIMEOUT_S, KafkaConfig
from joblog.streams.kafka.group_offsets import committed_offsets
from joblog.streams.kafka.last_records import last_records
from joblog.streams.kafka.topic_rules import (
    VITAL_SETTINGS,
    differences,
    is_shorter,
    missing_topics,
    partition_mistake,
)

_TIMEOUT_S: Final = 5
LAG_MAX: Final = 10_000
#: How many dead letters of each partition are examined, the last ones, and for how long.
DEAD_LETTERS_MAX: Final = 1_000
_DEAD_LETTERS_S: Final = 30
_LIST_DEAD_LETTERS: Final = "joblog deadletters list"
Config = Mapping[str, str]


def examine_kafka(settings: Settings) -> Iterator[Finding]:
    """All checks of Kafka; if no broker answers, the first is the only one."""
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
    wrong = list(_partitions(settings, cluster))
    yield from wrong or [ok("topics", f"all {len(TOPICS)} exist, with {settings.lanes} lanes")]
    yield from _topic_settings(client, settings, cluster, there)
    if len(there) == len(TOPICS):
        yield from _group(client, settings, cluster, "electors", "elector", (COMMANDS, REPORTS))
        yield from _group(client, settings, cluster, "delays", "delays process", DELAYS)
        yield from _dead_letters(client, settings, cluster)
    if not wrong:
        yield from examine_lanes(settings)


def _broker_settings(client: AdminClient, cluster: ClusterMetadata) -> Iterator[Finding]:
    broker = next(iter(cluster.brokers))
    resource = ConfigResource(ResourceType.BROKER, str(broker))
    entries = client.describe_configs([resource], request_timeout=_TIMEOUT_S)[resource].result()
    found = {name: entry.value for name, entry in entries.items() if entry.value is not None}
    wrong = list(broker_findings(found))
    yield from wrong
    if not wrong:
        yield ok("broker settings", "no automatic topic creation, no unclean leader election, time-outs wide enough")


def broker_findings(found: Config) -> Iterator[Finding]:
    """What is wrong with a broker's settings."""

    def number(name: str, default: int) -> int:
        return int(found.get(name, default))

    if found.get("auto.create.topics.enable") == "true":
        yield warn(
            "auto.create.topics.enable",
            "a mistyped topic name creates a topic that nobody reads",
            "set auto.create.topics.enable=false on the brokers",
        )
    if found.get("unclean.leader.election.enable") == "true":
        yield fail(
            "unclean.leader.election.enable",
            "acknowledged records can be lost when a broker fails",
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
            "a consumer group that is stopped for longer loses its offsets",
            "set offsets.retention.minutes=10080 or more on the brokers",
        )


def _partitions(settings: Settings, cluster: ClusterMetadata) -> Iterator[Finding]:
    """Topics that are missing, or have partition counts that do not fit."""
    missing = missing_topics(cluster.topics, settings.names, TOPICS)
    if missing:
        yield fail("topics", f"missing: {', '.join(missing)}", "joblog topics create")
    counts = {name: len(topic.partitions) for name, topic in cluster.topics.items()}
    mistake = partition_mistake(counts, settings.names, settings.lanes, TOPICS)
    if mistake is not None:
        yield fail("partitions", mistake.finding, mistake.fix)


def _topic_settings(
    client: AdminClient, settings: Settings, cluster: ClusterMetadata, there: Sequence[Topic]
) -> Iterator[Finding]:
    by_name = {settings.names.of(topic): topic for topic in there}
    if not by_name:
        return
    configs = topic_settings(client, by_name)
    found = list(setting_findings(configs, by_name, settings.names))
    for name in by_name:
        found += replica_findings(name, configs[name], cluster.topics[name], len(cluster.brokers))
    yield from found or [ok("topic settings", "retention, compaction, timestamps and replicas are as they should be")]


def setting_findings(
    configs: Mapping[str, Config], topics: Mapping[str, Topic], names: TopicNames
) -> Iterator[Finding]:
    """The settings of topics (both by name) that are not as they should be."""
    kept = configs.get(names.commands, {}).get("retention.ms")
    for one in differences(configs, topics, names):
        is_short = one.topic == names.reports and kept is not None and is_shorter(one.found, kept)
        judge = fail if one.setting in VITAL_SETTINGS or (one.setting == "retention.ms" and is_short) else warn
        yield judge(one.topic, f"{one.setting} is {one.found}, not {one.wanted}", f"joblog topics update {one.topic}")


def replica_findings(name: str, config: Config, metadata: Any, brokers: int) -> Iterator[Finding]:
    """What is wrong with the replicas of one topic."""
    replicas = min(len(partition.replicas) for partition in metadata.partitions.values())
    in_sync = min(len(partition.isrs) for partition in metadata.partitions.values())
    if in_sync < replicas:
        yield warn(name, f"only {in_sync} of {replicas} replicas are in sync", "check the brokers that are missing")
    if brokers >= 3 and replicas < 3:
        yield warn(
            name,
            f"{replicas} replicas on {brokers} brokers",
            "reassign it to 3 replicas, and set min.insync.replicas=2",
        )
    least = int(config.get("min.insync.replicas", 1))
    if least >= replicas > 1:
        yield fail(
            name,
            f"min.insync.replicas is {least} with {replicas} replicas: if one broker fails, nothing can be written",
            f"set min.insync.replicas={replicas - 1}",
        )
    if replicas >= 3 and least < 2:
        yield warn(
            name,
            "records are acknowledged when one replica has them: if that broker fails, they are lost",
            f"set min.insync.replicas={replicas - 1}",
        )


def _group(
    client: AdminClient, settings: Settings, cluster: ClusterMetadata, group: str, who: str, topics: Sequence[Topic]
) -> Iterator[Finding]:
    name, command = f"{settings.topic_prefix}{group}", f"joblog {who.split(maxsplit=1)[0]}"
    partitions = [
        TopicPartition(topic, number)
        for topic in map(settings.names.of, topics)
        for number in cluster.topics[topic].partitions
    ]
    found = client.describe_consumer_groups([name], request_timeout=_TIMEOUT_S)[name].result()
    if not found.members:
        yield fail(group, f"no {who} is running", command)
    else:
        yield ok(group, f"{len(found.members)} running, group {found.state.name.lower()}")
    lag = sum(_lags(client, settings.kafka.config(), name, partitions).values())
    if lag > LAG_MAX:
        yield warn(f"{group} lag", f"{lag} records are not read yet", f"start another: {command}; check the logs")
    else:
        yield ok(f"{group} lag", _at_most(lag))


def _lags(
    client: AdminClient, config: KafkaConfig, group: str, partitions: list[TopicPartition]
) -> dict[tuple[str, int], int]:
    """How many records of each partition the group has not read; all of them if it never committed an offset."""
    found = committed_offsets(config, group, partitions, _TIMEOUT_S)
    committed = {(one.topic, one.partition): one.offset for one in found}
    low, high = _ends(client, partitions)
    return {place: max(high[place] - max(committed.get(place, 0), low[place]), 0) for place in high}


def _dead_letters(client: AdminClient, settings: Settings, cluster: ClusterMetadata) -> Iterator[Finding]:
    topic = settings.names.deadletters
    low, high = _ends(client, [TopicPartition(topic, number) for number in cluster.topics[topic].partitions])
    count = sum(high[place] - low[place] for place in high)
    if not count:
        yield ok("dead letters", "none")
        return
    yield warn("dead letters", f"{_at_most(count)} that could not be processed", _LIST_DEAD_LETTERS)
    consumer = clients.reader(settings.kafka.config(), f"{settings.topic_prefix}doctor")
    try:
        yield from internal_errors(last_records(consumer, topic, DEAD_LETTERS_MAX, _DEAD_LETTERS_S))
    finally:
        consumer.close()


def internal_errors(letters: Iterable[Message]) -> Iterator[Finding]:
    """Dead letters for an exception that nobody foresaw: a mistake in Joblog or in a filter, not in the record."""
    found, place, last = 0, "", ""
    try:
        for letter in letters:
            headers = {name: _text(value) for name, value in readable_headers(letter) or ()}
            if headers.get("joblog-reason-code") == InternalError.code:
                found += 1
                last = f"{letter.partition()}:{letter.offset()}"
                place = "{joblog-topic}/{joblog-partition}@{joblog-offset}".format_map(defaultdict(str, headers))
    except KafkaException as exc:
        yield warn("dead letters", f"could not all be read: {exc.args[0].str()}", _LIST_DEAD_LETTERS)
    if found:
        yield fail(
            "dead letters",
            f"{found} with an internal error, such as {place}: processing them raised an unexpected exception",
            f"joblog deadletters show {last}; the reason is the traceback, which belongs in a bug report",
        )


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _at_most(count: int) -> str:
    """A number of offsets as a number of records: the marker that ends a transaction takes an offset, too."""
    return f"at most {count} records (transaction markers are counted)" if count else "none"


def _ends(client: AdminClient, places: list[TopicPartition]) -> tuple[dict[Any, int], dict[Any, int]]:
    """The first and the next offset of each partition."""

    def asked(spec: OffsetSpec) -> dict[Any, int]:
        futures = client.list_offsets(dict.fromkeys(places, spec), request_timeout=_TIMEOUT_S)
        return {(place.topic, place.partition): future.result().offset for place, future in futures.items()}

    return asked(OffsetSpec.earliest()), asked(OffsetSpec.latest())  # type: ignore[no-untyped-call]
