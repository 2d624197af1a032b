from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from joblog.projections.database import DatabaseAway
from joblog.projections.monitor.models import ParkedCode, Queue, QueuePause
from joblog.projections.outbox.rows import Status
from joblog.services.doctor.doctor import Finding, Level, examine, ok
from joblog.services.doctor.kafka import broker_findings, internal_errors, replica_findings, setting_findings
from joblog.services.doctor.outbox import examine_outbox
from joblog.services.doctor.outbox import findings as outbox_findings
from joblog.services.doctor.postgres import parked_records, paused_queues, skew
from joblog.services.doctor.this_process import durability, variables, versions
from joblog.services.settings.model import Settings
from joblog.streams.contract import deadletters
from joblog.streams.contract.states import State
from joblog.streams.contract.topics import COMMANDS, TOPICS, TopicNames


def partition(replicas: int, in_sync: int) -> SimpleNamespace:
    return SimpleNamespace(replicas=[*range(replicas)], isrs=[*range(in_sync)])


def topic(replicas: int = 1, in_sync: int | None = None) -> SimpleNamespace:
    wanted = replicas if in_sync is None else in_sync
    return SimpleNamespace(partitions={0: partition(replicas, replicas), 1: partition(replicas, wanted)})


def levels(findings: Iterator[Finding]) -> list[tuple[Level, str]]:
    found = list(findings)
    assert all(finding.fix for finding in found if finding.level is not Level.OK), "each mistake has a remedy"
    return [(finding.level, finding.check) for finding in found]


NAMES = TopicNames("t.")


def set_otherwise(changed: dict[str, dict[str, str]]) -> list[Finding]:
    """What is found when these topics, of all, have these settings."""
    topics = {NAMES.of(one): one for one in TOPICS}
    configs = {name: one.configuration() | changed.get(name, {}) for name, one in topics.items()}
    return list(setting_findings(configs, topics, NAMES))


def test_every_topic_is_well_as_joblog_creates_it() -> None:
    assert set_otherwise({}) == []
    for one in TOPICS:
        assert levels(replica_findings("t", one.configuration(), topic(), brokers=1)) == []
        durable = {**one.configuration(), "min.insync.replicas": "2"}
        assert levels(replica_findings("t", durable, topic(3), brokers=3)) == []


@pytest.mark.parametrize(
    ("one", "setting", "found", "level"),
    [
        ("t.commands", "cleanup.policy", "compact", Level.FAIL),
        ("t.commands", "message.timestamp.type", "CreateTime", Level.FAIL),
        ("t.state", "cleanup.policy", "delete", Level.FAIL),
        ("t.commands", "retention.ms", "1000", Level.WARN),
        ("t.reports", "retention.ms", "259200000", Level.FAIL),
    ],
    ids=str,
)
def test_a_topic_with_another_setting_is_found_with_the_command_that_changes_it(
    one: str, setting: str, found: str, level: Level
) -> None:
    (finding,) = set_otherwise({one: {setting: found}})
    assert (finding.level, finding.check, finding.fix) == (level, one, f"joblog topics update {one}")
    assert f"{setting} is {found}, not " in finding.finding


def test_reports_that_are_kept_as_long_as_commands_are_a_warning_even_if_that_is_short() -> None:
    found = set_otherwise({"t.commands": {"retention.ms": "1000"}, "t.reports": {"retention.ms": "1000"}})
    assert levels(iter(found)) == [(Level.WARN, "t.commands"), (Level.WARN, "t.reports")]


def test_records_may_be_kept_longer_but_reports_not_shorter_than_commands() -> None:
    for kept in ("-1", "9999999999"):
        assert set_otherwise({"t.reports": {"retention.ms": kept}}) == []
        (finding,) = set_otherwise({"t.commands": {"retention.ms": kept}})
        assert (finding.level, finding.finding) == (Level.FAIL, f"retention.ms is 1209600000, not {kept}")


@pytest.mark.parametrize(
    ("changed", "replicas", "in_sync", "level"),
    [
        ({"min.insync.replicas": "2"}, 3, 2, Level.WARN),
        ({"min.insync.replicas": "3"}, 3, 3, Level.FAIL),
        ({"min.insync.replicas": "1"}, 3, 3, Level.WARN),
        ({}, 2, 2, Level.WARN),
    ],
    ids=str,
)
def test_what_is_wrong_with_replicas(changed: dict[str, str], replicas: int, in_sync: int, level: Level) -> None:
    config = {**COMMANDS.configuration(), **changed}
    assert levels(replica_findings("t", config, topic(replicas, in_sync), brokers=3))[0] == (level, "t")


@pytest.mark.parametrize(
    ("config", "level"),
    [
        ({"auto.create.topics.enable": "true"}, Level.WARN),
        ({"unclean.leader.election.enable": "true"}, Level.FAIL),
        ({"group.min.session.timeout.ms": "10000"}, Level.FAIL),
        ({"transaction.max.timeout.ms": "5000"}, Level.FAIL),
        ({"offsets.retention.minutes": "60"}, Level.WARN),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_broker(config: dict[str, str], level: Level) -> None:
    assert levels(broker_findings(config)) == [(level, next(iter(config)))]


def test_kafka_as_it_is_delivered_wants_no_topics_by_accident() -> None:
    delivered = {
        "auto.create.topics.enable": "true",
        "unclean.leader.election.enable": "false",
        "group.min.session.timeout.ms": "6000",
        "transaction.max.timeout.ms": "900000",
        "offsets.retention.minutes": "10080",
    }
    assert levels(broker_findings(delivered)) == [(Level.WARN, "auto.create.topics.enable")]


def test_a_check_that_breaks_off_is_a_finding_and_the_others_go_on() -> None:
    def breaking(_settings: Settings) -> Iterator[Finding]:
        yield ok("first", "fine")
        raise OSError("no route\nto host")

    def well(_settings: Settings) -> Iterator[Finding]:
        yield ok("last", "fine")

    found = list(examine(Settings.load(), [("Kafka", breaking), ("x", well)]))
    assert [(finding.level, finding.check) for finding in found] == [
        (Level.OK, "first"),
        (Level.FAIL, "Kafka"),
        (Level.OK, "last"),
    ]
    assert found[1].finding == "OSError: no route"


def test_a_variable_that_nobody_reads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBLOG_DSN", "x")
    monkeypatch.setenv("JOBLOG_SERVICE_HOST", "10.0.0.1")  # what Kubernetes sets for a service of this name
    (finding,) = variables(Settings.load())
    assert finding.level is Level.WARN
    assert finding.finding == "JOBLOG_DSN is not a setting"


def test_versions_are_told() -> None:
    assert levels(versions(Settings.load())) == [(Level.OK, "versions"), (Level.OK, "librdkafka")]


def test_settings_that_lose_data_or_time_together_are_told() -> None:
    assert levels(durability(Settings.load())) == [(Level.OK, "rules")]
    assert levels(durability(Settings.load(replication=2))) == [(Level.WARN, "replication")]
    assert levels(durability(Settings.load(worker={"grace_s": 60}))) == [(Level.WARN, "worker.grace_s")]


def test_a_paused_queue_is_a_warning_that_says_who_paused_it_and_why() -> None:
    at = datetime(2027, 1, 1, 8, tzinfo=UTC)
    said = {"since": at, "until": at + timedelta(hours=1), "paused_by": "ann", "reason": "the disk is full"}
    pause = QueuePause(state="drained", lanes=1, **said)
    queue = {"counts": dict.fromkeys(State, 0) | {State.ENQUEUED: 7}, "oldest_waiting_s": 1.0, "first_jobs": ()}
    queues = [Queue(name="q", workers=1, **queue), Queue(name="images", workers=1, pause=pause, **queue)]
    (finding,) = paused_queues(queues)
    assert finding.finding == (
        "images is drained since 2027-01-01 08:00Z until 2027-01-01 09:00Z by ann (the disk is full): 7 jobs wait"
    )
    assert (finding.level, finding.fix) == (Level.WARN, "joblog queue resume images")


def test_parked_records_are_a_warning_and_internal_errors_fail() -> None:
    gap = ParkedCode(code="version_gap", records=3, lane=1, log_offset=7)
    internal = ParkedCode(code="internal_error", records=2, lane=0, log_offset=9)
    assert levels(parked_records([])) == [(Level.OK, "parked")]
    assert levels(parked_records([gap])) == [(Level.WARN, "parked")]
    failed, warned = parked_records([gap, internal])
    assert (failed.level, warned.level) == (Level.FAIL, Level.WARN)
    assert "2 with an internal error, such as lane 0, offset 9" in failed.finding
    assert "joblog parked list" in failed.fix


class Letter:
    """A dead letter, as far as the doctor looks at it."""

    def __init__(self, code: str, offset: int) -> None:
        self._headers = deadletters.headers(code, "reason", "delays", "t.delay.now", 1, offset)

    def headers(self) -> Any:
        return self._headers

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 17


def test_dead_letters_that_cannot_be_read_to_the_end_are_a_warning_and_what_was_read_counts() -> None:
    def letters() -> Iterator[Any]:
        yield Letter("internal_error", 4)
        yield Letter("undecodable", 5)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    warned, failed = internal_errors(letters())
    assert (warned.level, failed.level) == (Level.WARN, Level.FAIL)
    assert failed.finding.startswith("1 with an internal error, such as t.delay.now/1@4")
    assert failed.fix.startswith("joblog deadletters show 0:17;")
    assert list(internal_errors([])) == []


@pytest.mark.parametrize(("told", "apart"), [(10.0, 0), (10.5, 0), (11.0, 0), (8.0, 2), (14.0, 3)])
def test_a_clock_is_off_by_what_lies_outside_of_the_question(told: float, apart: float) -> None:
    assert skew(datetime.fromtimestamp(told, UTC), 10.0, 11.0) == apart


def test_rows_of_an_outbox_that_nobody_relays_are_found_and_those_that_are_parked() -> None:
    now = datetime.now(UTC)
    assert levels(outbox_findings(Status(0, None, 0), now)) == [(Level.OK, "outbox")]
    assert levels(outbox_findings(Status(9, now - timedelta(seconds=5), 0), now)) == [(Level.OK, "outbox")]
    assert levels(outbox_findings(Status(9, now - timedelta(seconds=31), 2), now)) == [
        (Level.FAIL, "outbox"),
        (Level.WARN, "outbox"),
    ]


def test_an_outbox_is_looked_for_where_it_is_said_to_be() -> None:
    nowhere = "postgresql://me@127.0.0.1:1/x"
    assert list(examine_outbox(Settings(postgres={"dsn": nowhere}))) == []
    with pytest.raises(DatabaseAway):
        list(examine_outbox(Settings(outbox={"dsn": nowhere})))
