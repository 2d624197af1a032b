"""Workers that renew are not lost, whatever happens to clocks and brokers; a worker that is dead is."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from joblog.services.embedded.stack import EmbeddedStack
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.electors import WORKER, Electors, Log, all_along

pytestmark = pytest.mark.broker

HOUR_MS = 3_600_000


def let_the_test_set_append_times(log: Log) -> None:
    """Records of `reports` have the time that their producer says, as if the broker's clock were set."""
    settings = {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.before.max.ms": str(100 * HOUR_MS),
        "message.timestamp.after.max.ms": str(100 * HOUR_MS),
    }
    changed = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
    ]
    admin = clients.admin(log.kafka)
    resource = ConfigResource(ResourceType.TOPIC, log.names.reports, incremental_configs=changed)
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(10)


@pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS])
def test_a_brokers_clock_that_is_set_makes_no_worker_lost_whose_renewal_is_unread(
    start: Electors, log: Log, wait_until: Any, step_ms: int
) -> None:
    let_the_test_set_append_times(log)
    start("a")
    began = int(time.time() * 1000)
    log.renew(WORKER, 0, timestamp=began)
    log.renew("other", 0, timestamp=began + 100)
    wait_until(lambda: started(log) == [WORKER, "other"], 90, "the workers")
    log.renew("other", 0, timestamp=began + 3_000 + step_ms)
    log.renew("third", 0, timestamp=began + 3_000 + step_ms)
    wait_until(lambda: "third" in started(log), 90, "the step to be read")
    decided = log.create(0)
    wait_until(lambda: log.of(decided), 30, "another turn")
    time.sleep(0.5)  # some turns
    assert not log.lost()
    log.renew(WORKER, 0, timestamp=began + 3_100 + step_ms)
    # The log's time goes on from there: who is silent for the lease is lost, by the broker's clock, and nobody else.
    for renewals in range(1, 7):
        for worker in (WORKER, "third"):
            log.renew(worker, 0, timestamp=began + 3_100 + step_ms + 3_000 * renewals)
    wait_until(log.lost, 60, "the worker that is silent")
    assert log.lost() == ["other"]


def test_an_electors_clock_that_is_set_makes_no_worker_lost(start: Electors, log: Log, wait_until: Any) -> None:
    elector = start("a")
    log.renew(WORKER, 0)
    wait_until(lambda: started(log), 90, "the worker")
    time.sleep(5.5)  # for the time after a take-over nobody is lost in any case
    elector.set_clock_on()
    job = log.create(0)
    log.producer.flush()
    wait_until(lambda: log.of(job), 30, "the elector to go on")
    time.sleep(0.5)
    assert not log.lost()
    day = [event["time"][:13] for event in log.events if event["subject"] == job]
    assert day > [time.strftime("%Y-%m-%dT%H", time.gmtime())], "its clock was not set"


def started(log: Log) -> list[str]:
    return [one["subject"] for one in log.poll().events if one["type"] == "worker.started"]


@pytest.fixture
def broker() -> Iterator[EmbeddedStack]:
    with TemporaryDirectory(prefix="joblog-") as name, EmbeddedStack(Path(name), postgres=False) as stack:
        yield stack


def test_nobody_is_lost_since_the_broker_was_away(
    broker: EmbeddedStack, names: TopicNames, lanes: int, tmp_path: Path, wait_until: Any
) -> None:
    config = KafkaConfig(broker.addresses.bootstrap_servers)
    create_topics(config, names, lanes)
    with Electors(config, names, lanes, tmp_path) as start, closing(Log(config, names, lanes)) as log:
        start("a", rules={"lease_ms": 2_000})
        log.renew("dead", 0, slots=0)
        wait_until(lambda: log.lost() == ["dead"], 90, "a worker without renewals to be lost")
        with all_along(lambda: log.renew(WORKER, 0), 0.2):
            wait_until(lambda: WORKER in started(log), 60, "the worker")
            broker.kill_broker()
            time.sleep(3)  # longer than the lease
            broker.start_broker()
            job = log.create(0)
            wait_until(lambda: log.of(job), 60, "the elector to go on")
            time.sleep(1)
        assert log.lost() == ["dead"]
