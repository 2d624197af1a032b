"""The projector among rivals, kills and outages: nothing is lost, nothing is applied twice."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from confluent_kafka import Producer
from joblog.projections.projector.event_batch import Entry, Parked
from joblog.projections.projector.tables import Tables
from joblog.projections.schema import migrate
from joblog.services.embedded.stack import EmbeddedStack
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig

from tests.support import projection_settings
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
PROCESS = """
import signal, sys, threading
from joblog.projections.projector.projector import Projector
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.contract.topics import TopicNames

bootstrap, prefix, lanes, dsn, schema, batch_max = sys.argv[1:]
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
Projector(
    KafkaConfig(bootstrap), TopicNames(prefix), int(lanes), dsn, schema,
    meters=Meters(), health=Health("projector"), batch_max=int(batch_max),
).run(stop)
"""


def started(setting: Setting) -> subprocess.Popen[bytes]:
    """A projector in a process of its own, to be killed."""
    place = [setting.kafka.bootstrap_servers, setting.names.prefix, str(setting.lanes), setting.dsn, setting.schema]
    return subprocess.Popen([sys.executable, "-c", PROCESS, *place, "400"])


@pytest.fixture
def lanes() -> int:
    return 3


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
    kills = 0
    for _ in range(30):
        before = setting.applied()
        if before == len(values):
            break
        process = started(setting)
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
    process = started(setting)
    wait_until(lambda: connections_of_projectors(setting.dsn) > before, 30, "the projector")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    wait_until(lambda: connections_of_projectors(setting.dsn) == before, 30, "the end of its connection")
