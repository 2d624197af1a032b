"""The projector on a real log and database: what it applies, what it says of itself, and what ends it."""

import threading
import time
from collections import deque
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, Message, Producer
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.projector import event_batch
from joblog.projections.projector import projector as projector_module
from joblog.projections.projector.decode import JobFact
from joblog.projections.projector.projector import READ_MAX
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import LogLost, SchemaError, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig

from tests.support import projection_settings
from tests.support.projection_events import Story, worker_event
from tests.support.projection_settings import (
    Setting,
    WaitUntil,
    interleaved,
    jobs,
    running,
    sample,
    write,
)

# The fixtures that this module uses.
dsn = projection_settings.dsn
setting = projection_settings.setting
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]


@pytest.fixture
def lanes() -> int:
    return 3


def test_the_log_ends_up_in_the_tables(setting: Setting, writer: Producer, wait_until: WaitUntil) -> None:
    values = interleaved(jobs(500, setting.lanes))
    write(writer, setting.names, values)
    with running(setting.projector(batch_max=333)):
        wait_until(lambda: setting.applied() == len(values), 30, "all events")
        assert setting.health.ready
    assert not setting.health.ready
    assert setting.differences() == []
    assert sample(setting.meters, "joblog_projection_events_total") == len(values)


def test_it_goes_on_where_another_one_stopped(setting: Setting, writer: Producer) -> None:
    first, second = jobs(50, setting.lanes), jobs(50, setting.lanes, 51)
    for stories in (first, second):
        write(writer, setting.names, interleaved(stories))
        projector = setting.projector()
        applied = 0
        while applied < 150:
            applied += projector.step()
        assert applied == 150
        projector.close()
    assert setting.differences() == []


class FetchedAhead:
    """A consumer with a queue that the test fills: what a busy projector finds when it comes back."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._queue: deque[Message] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def fetch_to_end(self, lane: int, records: int) -> None:
        """Fetch so many records of a lane, and that there it ends."""
        seen = 0
        while seen < records or self._queue[-1].error() is None or self._queue[-1].partition() != lane:
            found = self._consumer.consume(1, 30)
            assert found, "nothing was fetched"
            self._queue += found
            seen += found[0].error() is None

    def consume(self, most: int, _timeout_s: float) -> list[Message]:
        return [self._queue.popleft() for _ in range(min(most, len(self._queue)))]


def test_a_batch_goes_on_behind_the_end_that_a_lane_had_when_it_was_fetched(
    setting: Setting, writer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[FetchedAhead] = []

    def reader(*args: Any, **options: Any) -> Any:
        ahead.append(FetchedAhead(make(*args, **options)))
        return ahead[-1]

    make = clients.reader
    values = interleaved(jobs(READ_MAX, setting.lanes))
    projector = setting.projector()
    with monkeypatch.context() as patched:
        patched.setattr(clients, "reader", reader)
        assert projector.step() == 0
    for lane in range(setting.lanes):
        of_lane = [one for one in values if one[0] == lane]
        write(writer, setting.names, of_lane)
        ahead[0].fetch_to_end(lane, len(of_lane))
    assert projector.step() == len(values), "the batch ended where something was left to read"
    projector.close()
    assert setting.differences() == []


def test_some_lanes_may_be_left_to_others(setting: Setting, writer: Producer, wait_until: WaitUntil) -> None:
    write(writer, setting.names, interleaved(jobs(90, setting.lanes)))
    other = Setting(setting.kafka, setting.names, setting.lanes, setting.dsn, setting.schema)
    with running(setting.projector(only=[0])), running(other.projector(only=[1, 2])):
        wait_until(lambda: setting.applied() == 270, 30, "all events")
    assert setting.differences() == []
    assert sample(setting.meters, "joblog_projection_events_total") == 90


def test_what_a_transaction_did_not_commit_is_not_applied(
    setting: Setting, writer: Producer, wait_until: WaitUntil
) -> None:
    doubtful = clients.transactional_producer(setting.kafka, f"{setting.names.prefix}doubtful")
    doubtful.init_transactions(30)
    doubtful.begin_transaction()
    doubtful.produce(setting.names.events, Story(random=900).enqueued().values[0], partition=0)
    doubtful.flush(30)
    doubtful.abort_transaction(30)
    write(writer, setting.names, [(0, Story(random=901).enqueued().values[0])])
    with running(setting.projector()), Monitor(setting.dsn, setting.schema) as monitor:
        wait_until(lambda: monitor.jobs().items, 30, "the committed job")
        assert [job.id for job in monitor.jobs().items] == [Story(random=901).id]
        # Behind the last record stands the marker of the abort, which nobody reads: that is no lag.
        wait_until(lambda: sample(setting.meters, "joblog_projection_lag_records", partition="0") == 0, 30, "no lag")


def test_it_tells_how_late_it_is(setting: Setting, writer: Producer, wait_until: WaitUntil) -> None:
    with running(setting.projector()), Monitor(setting.dsn, setting.schema) as monitor:
        wait_until(
            lambda: [one.current_at is not None for one in monitor.offsets()] == [True] * 3, 30, "an empty log"
        )
        write(writer, setting.names, [(1, Story(lane=1).enqueued().values[0])])
        wait_until(lambda: monitor.offsets()[1].next_offset == 1, 30, "the event")
        late = monitor.statistics().late_s
        assert late is not None
        assert late < 30
    logged = sample(setting.meters, "joblog_projection_applied_timestamp_seconds", partition="1")
    assert logged is not None
    assert abs(time.time() - logged) < 60
    with Monitor(setting.dsn, setting.schema) as monitor:
        before = monitor.statistics().late_s
        assert before is not None
        wait_until(lambda: (monitor.statistics().late_s or 0) > before + 0.1, 10, "being later without a projector")


def test_a_lane_that_is_behind_does_not_make_the_others_late(
    setting: Setting, writer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "OBSERVE_S", 0)
    write(writer, setting.names, [(0, Story(random=n).enqueued().values[0]) for n in range(1, 101)])
    projector = setting.projector(batch_max=1)
    while not projector.step():
        pass
    projector.close()
    with Monitor(setting.dsn, setting.schema) as monitor:
        busy, *idle = monitor.offsets()
    assert busy.next_offset < 100
    assert [one.current_at is not None for one in idle] == [True, True]


def test_a_record_that_fails_in_a_way_nobody_foresaw_is_set_aside_alone(
    setting: Setting,
    writer: Producer,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = jobs(30, setting.lanes)
    poison = Story(lane=2, random=777).enqueued().processing(reason="odd")
    write(writer, setting.names, interleaved([*good, poison]))
    usual = event_batch.kept

    def failing(record: event_batch.Record, fact: JobFact) -> bytes:
        if fact.event.reason == "odd":
            raise KeyError("of a kind nobody foresaw")
        return usual(record, fact)

    with monkeypatch.context() as patched, running(setting.projector()):
        patched.setattr(event_batch, "kept", failing)
        wait_until(lambda: setting.applied() == 90 + 2, 30, "all events")
    assert sample(setting.meters, "joblog_quarantined_records_total", role="projector", reason="internal_error") == 1
    with Monitor(setting.dsn, setting.schema) as monitor:
        [parked] = monitor.parked(limit=500).items
    assert (parked.code, parked.raw) == ("internal_error", poison.values[1])
    assert parked.reason.startswith("Traceback")
    assert parked.reason.endswith("KeyError: 'of a kind nobody foresaw'\n")
    assert "projection.failed" in [one.msg for one in caplog.records]
    assert setting.differences() == []


def test_records_that_cannot_be_applied_are_set_aside(
    setting: Setting, writer: Producer, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    good = jobs(30, setting.lanes)
    broken = [(n % setting.lanes, b"no event %d" % n) for n in range(200)]
    poison = Story(lane=2, random=777).enqueued().processing(reason="a\x00b")
    write(writer, setting.names, interleaved(good) + broken + interleaved([poison]))
    with running(setting.projector()):
        wait_until(lambda: setting.applied() == 90 + 200 + 2, 30, "all events")
    assert sample(setting.meters, "joblog_quarantined_records_total", role="projector", reason="undecodable") == 200
    assert sample(setting.meters, "joblog_quarantined_records_total", role="projector", reason="refused") == 1
    with Monitor(setting.dsn, setting.schema) as monitor:
        refused = [one for one in monitor.parked(limit=500).items if one.code == "refused"]
        assert [one.raw for one in refused] == [poison.values[1]]
    assert setting.differences() == []
    # A flood of broken records is no flood of log lines.
    assert len([one for one in caplog.records if one.msg == "projection.parked"]) < 20


def test_a_missing_schema_ends_it_with_what_to_do(
    kafka: KafkaConfig, topics: TopicNames, stack: StackAddresses, schema: str
) -> None:
    projector = Setting(kafka, topics, 3, stack.dsn, schema).projector()
    with pytest.raises(SchemaError, match="joblog migrate"):
        projector.run(threading.Event())


def test_a_missing_topic_ends_it(kafka: KafkaConfig, names: TopicNames, dsn: str, schema: str) -> None:
    with pytest.raises(TopicsError, match="is missing"):
        Setting(kafka, names, 3, dsn, schema).projector().run(threading.Event())


def test_other_partitions_than_lanes_end_it(kafka: KafkaConfig, topics: TopicNames, dsn: str, schema: str) -> None:
    with pytest.raises(TopicsError, match="has 3 partitions, not 4"):
        Setting(kafka, topics, 4, dsn, schema).projector().run(threading.Event())


def test_an_offset_that_the_log_does_not_hold_ends_it(setting: Setting, writer: Producer) -> None:
    write(writer, setting.names, [(0, worker_event("worker.started"))])
    with psycopg.connect(setting.dsn, options=f"-c search_path={setting.schema}") as connection:
        connection.execute("INSERT INTO offsets VALUES (0, 1000)")
    with pytest.raises(LogLost, match=r"lane 0 .* holds the offsets 0 to 1, not 1000"):
        setting.projector().run(threading.Event())
