"""The projector on a real log and database: restarts, outages, rivals, and what it says of itself."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from joblog.projections import migrate
from joblog.projections.batch import Entry, Parked
from joblog.projections.monitor import Monitor
from joblog.projections.projector import Projector
from joblog.projections.tables import Tables
from joblog.projections.verify import differences, read_log
from joblog.services.embedded import EmbeddedStack, StackAddresses
from joblog.streams import kafka as clients
from joblog.streams.admin import create_topics
from joblog.streams.errors import LogLost, SchemaError, TopicsError
from joblog.streams.health import Health
from joblog.streams.kafka import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.topics import TopicNames

from tests.projection_events import Story, worker_event

WaitUntil = Callable[[Callable[[], Any], float, str], Any]

PROCESS = """
import signal, sys, threading
from joblog.projections.projector import Projector
from joblog.streams.health import Health
from joblog.streams.kafka import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.topics import TopicNames

bootstrap, prefix, lanes, dsn, schema, batch_max = sys.argv[1:]
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
Projector(
    KafkaConfig(bootstrap), TopicNames(prefix), int(lanes), dsn, schema,
    meters=Meters(), health=Health("projector"), batch_max=int(batch_max),
).run(stop)
"""


@pytest.fixture
def lanes() -> int:
    return 3


@pytest.fixture
def dsn(stack: StackAddresses, schema: str) -> str:
    migrate.upgrade(stack.dsn, schema)
    return stack.dsn


@pytest.fixture
def writer(kafka: KafkaConfig) -> Producer:
    return clients.producer(kafka, "test-events")


def write(writer: Producer, topics: TopicNames, values: list[tuple[int, bytes]]) -> None:
    for lane, value in values:
        writer.produce(topics.events, value, partition=lane)
    assert writer.flush(30) == 0


def interleaved(stories: list[Story], seed: int = 0) -> list[tuple[int, bytes]]:
    """The stories' events as they would come: those of one job in order, jobs mixed."""
    chance = random.Random(seed)
    order = [story for story in stories for _ in story.values]
    chance.shuffle(order)
    following = {story.id: iter(story.values) for story in stories}
    return [(story.lane, next(following[story.id])) for story in order]


def jobs(count: int, lanes: int, first: int = 1) -> list[Story]:
    made = []
    for n in range(first, first + count):
        story = Story(lane=n % lanes, random=n, queue=f"q{n % 5}").enqueued().processing()
        made.append(story.failed() if n % 7 == 0 else story.succeeded({"n": n}))
    return made


@contextmanager
def running(projector: Projector) -> Iterator[threading.Event]:
    stop = threading.Event()
    errors: list[BaseException] = []

    def target() -> None:
        try:
            projector.run(stop)
        except BaseException as error:  # noqa: BLE001 - handed to the test below
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
        if errors:
            raise errors[0]


def sample(meters: Meters, name: str, **labels: str) -> float | None:
    return meters.registry.get_sample_value(name, labels)


class Setting:
    """One projector's place: log, tables, meters, health."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, lanes: int, dsn: str, schema: str) -> None:
        self.kafka, self.names, self.lanes, self.dsn, self.schema = kafka, names, lanes, dsn, schema
        self.meters, self.health = Meters(), Health("projector")

    def projector(self, **options: Any) -> Projector:
        return Projector(
            self.kafka,
            self.names,
            self.lanes,
            self.dsn,
            self.schema,
            meters=self.meters,
            health=self.health,
            **options,
        )

    def applied(self) -> int:
        with psycopg.connect(self.dsn, options=f"-c search_path={self.schema}") as connection:
            found = connection.execute("SELECT sum(next_offset)::int FROM offsets").fetchone()
        return found[0] or 0 if found else 0

    def differences(self) -> list[str]:
        return differences(self.dsn, self.schema, read_log(self.kafka, self.names, self.lanes))


@pytest.fixture
def setting(kafka: KafkaConfig, topics: TopicNames, lanes: int, dsn: str, schema: str) -> Setting:
    return Setting(kafka, topics, lanes, dsn, schema)


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


def test_two_projectors_step_back_and_nothing_is_applied_twice(
    setting: Setting, writer: Producer, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    rival = Setting(setting.kafka, setting.names, setting.lanes, setting.dsn, setting.schema)
    values = interleaved(jobs(2_000, setting.lanes))
    with running(setting.projector(batch_max=50)), running(rival.projector(batch_max=50)):
        for start in range(0, len(values), 500):
            write(writer, setting.names, values[start : start + 500])
        wait_until(lambda: setting.applied() == len(values), 60, "all events")
    assert setting.differences() == []
    assert any("OffsetConflict" in str(getattr(one, "reason", "")) for one in caplog.records)


def test_a_batch_that_takes_too_long_is_made_smaller(
    setting: Setting, writer: Producer, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = Tables.apply
    sizes = []

    def slow(tables: Tables, entries: Sequence[Entry], meanwhile: Callable[[], None]) -> list[Parked]:
        sizes.append(len(entries))
        if len(entries) > 100:
            raise psycopg.errors.QueryCanceled("canceling statement due to statement timeout")
        return apply(tables, entries, meanwhile)

    monkeypatch.setattr(Tables, "apply", slow)
    write(writer, setting.names, interleaved(jobs(300, setting.lanes)))
    with running(setting.projector()):
        wait_until(lambda: setting.applied() == 900, 60, "all events")
    assert max(sizes) > 100
    assert setting.differences() == []


def test_killed_at_random_it_applies_everything_once(
    setting: Setting, writer: Producer, wait_until: WaitUntil
) -> None:
    chance = random.Random(4)
    values = interleaved(jobs(4_000, setting.lanes))
    write(writer, setting.names, values)
    arguments = [
        setting.kafka.bootstrap_servers,
        setting.names.prefix,
        str(setting.lanes),
        setting.dsn,
        setting.schema,
    ]
    kills = 0
    for _ in range(30):
        before = setting.applied()
        if before == len(values):
            break
        process = subprocess.Popen([sys.executable, "-c", PROCESS, *arguments, "400"])
        try:
            wait_until(lambda least=before: setting.applied() > least, 60, "progress")  # type: ignore[misc]
            threading.Event().wait(chance.random() * 0.1)
        finally:
            process.send_signal(signal.SIGKILL)
            assert process.wait(30) == -signal.SIGKILL
        kills += 1
    assert kills > 1
    with running(setting.projector()):
        wait_until(lambda: setting.applied() == len(values), 60, "all events")
    assert setting.differences() == []


def test_a_missing_schema_ends_it_with_what_to_do(
    kafka: KafkaConfig, topics: TopicNames, stack: StackAddresses, schema: str
) -> None:
    projector = Setting(kafka, topics, 3, stack.dsn, schema).projector()
    with pytest.raises(SchemaError, match="joblog migrate"):
        projector.run(threading.Event())


def test_a_missing_topic_ends_it(kafka: KafkaConfig, names: TopicNames, dsn: str, schema: str) -> None:
    with pytest.raises(TopicsError, match="is missing"):
        Setting(kafka, names, 3, dsn, schema).projector().run(threading.Event())


def test_a_topic_that_was_there_is_waited_for(setting: Setting, writer: Producer, wait_until: WaitUntil) -> None:
    admin = clients.admin(setting.kafka)
    with running(setting.projector()):
        wait_until(lambda: setting.health.ready, 30, "the projector")
        admin.delete_topics([setting.names.events], operation_timeout=30)[setting.names.events].result()
        wait_until(lambda: not setting.health.ready, 90, "the topic to be missed")
        wait_until(lambda: setting.names.events not in admin.list_topics(timeout=10).topics, 30, "the deletion")
        create_topics(setting.kafka, setting.names, setting.lanes)
        write(writer, setting.names, interleaved(jobs(10, setting.lanes)))
        wait_until(lambda: setting.applied() == 30, 60, "all events")
    assert setting.differences() == []


def test_other_partitions_than_lanes_end_it(kafka: KafkaConfig, topics: TopicNames, dsn: str, schema: str) -> None:
    with pytest.raises(TopicsError, match="has 3 partitions, not 4"):
        Setting(kafka, topics, 4, dsn, schema).projector().run(threading.Event())


def test_an_offset_that_the_log_does_not_hold_ends_it(setting: Setting, writer: Producer) -> None:
    write(writer, setting.names, [(0, worker_event("worker.started"))])
    with psycopg.connect(setting.dsn, options=f"-c search_path={setting.schema}") as connection:
        connection.execute("INSERT INTO offsets VALUES (0, 1000)")
    with pytest.raises(LogLost, match=r"lane 0 .* holds the offsets 0 to 1, not 1000"):
        setting.projector().run(threading.Event())


def test_a_stop_is_heard_while_postgres_is_away(setting: Setting, wait_until: WaitUntil) -> None:
    setting.dsn = "postgresql://nobody@127.0.0.1:1/nothing"
    started = time.monotonic()
    with running(setting.projector()) as stop:
        wait_until(lambda: "OperationalError" in setting.health.reason, 30, "stepping back")
        assert not setting.health.ready
        assert setting.health.alive
        stop.set()
    assert time.monotonic() - started < 20
    assert (sample(setting.meters, "joblog_db_errors_total", role="projector", sqlstate="08") or 0) >= 1


def test_outages_of_both_servers_lose_nothing(lanes: int, wait_until: WaitUntil) -> None:
    with TemporaryDirectory(prefix="joblog-outage-") as directory, EmbeddedStack(Path(directory)) as own:
        kafka = KafkaConfig(own.addresses.bootstrap_servers)
        names = TopicNames()
        create_topics(kafka, names, lanes)
        migrate.upgrade(own.addresses.dsn, "joblog")
        setting = Setting(kafka, names, lanes, own.addresses.dsn, "joblog")
        writer = clients.producer(kafka, "test-events")
        values = interleaved(jobs(3_000, lanes))
        third = len(values) // 3
        with running(setting.projector(batch_max=200)):
            write(writer, names, values[:third])
            wait_until(lambda: setting.applied() > 0, 30, "the first events")
            own.stop_postgres(immediate=True)
            write(writer, names, values[third : 2 * third])
            wait_until(lambda: not setting.health.ready, 30, "being unready without Postgres")
            assert setting.health.alive
            own.start_postgres()
            wait_until(lambda: setting.applied() == 2 * third, 60, "what came meanwhile")
            wait_until(lambda: setting.health.ready, 30, "being ready again")
            own.kill_broker()
            wait_until(lambda: not setting.health.ready, 30, "being unready without Kafka")
            assert setting.health.alive
            own.start_broker()
            write(writer, names, values[2 * third :])
            wait_until(lambda: setting.applied() == len(values), 60, "the rest")
            wait_until(lambda: setting.health.ready, 30, "being ready at last")
        assert setting.differences() == []


def connections_of_projectors(dsn: str) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'joblog-projector'"
    with psycopg.connect(dsn) as connection:
        found = connection.execute(query).fetchone()
    return found[0] if found else 0


def test_a_killed_projector_leaves_no_connection(setting: Setting, wait_until: WaitUntil) -> None:
    before = connections_of_projectors(setting.dsn)
    arguments = [
        setting.kafka.bootstrap_servers,
        setting.names.prefix,
        str(setting.lanes),
        setting.dsn,
        setting.schema,
    ]
    process = subprocess.Popen([sys.executable, "-c", PROCESS, *arguments, "400"])
    wait_until(lambda: connections_of_projectors(setting.dsn) > before, 30, "the projector")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    wait_until(lambda: connections_of_projectors(setting.dsn) == before, 30, "the end of its connection")
