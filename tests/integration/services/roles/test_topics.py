"""Each role refuses topics that do not fit its settings, at its start and while it runs."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.cimpl import NewPartitions
from joblog.projections.outbox.operating import create
from joblog.services.embedded.stack import StackAddresses
from joblog.services.roles import outbox, projector, triggers, wiring, worker
from joblog.services.roles import topics as checking
from joblog.services.roles.runner import Builder, run_role
from joblog.services.settings.model import Settings
from joblog.streams.contract.topics import TOPICS_OF_ROLES, Topic, TopicNames
from joblog.streams.elector.elector import Elector
from joblog.streams.errors import TopicsError
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

pytestmark = [pytest.mark.broker, pytest.mark.database]


def relay_of_a_new_outbox(settings: Settings) -> Builder:
    create(settings.outbox_dsn(), settings.outbox.schema_name)
    return outbox.outbox(settings)


ROLES: dict[str, Callable[[Settings], Builder]] = {
    "elector": wiring.elector,
    "delays": wiring.delays,
    "worker": worker.worker,
    "projector": projector.projector,
    "triggers": triggers.triggers,
    "outbox": relay_of_a_new_outbox,
}
DEADLINE_S = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Looks often, and has a module with a task."""
    monkeypatch.setattr(checking, "CONFIRM_S", 0.5)
    monkeypatch.setattr(checking, "CONFIRM_RUNNING_S", 0.5)
    monkeypatch.setattr(checking, "WATCH_S", 0.2)
    monkeypatch.setattr(checking, "RETRY_S", 0.2)
    (tmp_path / "topictasks.py").write_text(
        "from joblog.services.tasks.task import task\n@task('x')\ndef x() -> None: ...\n"
    )
    (tmp_path / "topictriggers.py").write_text(
        "from joblog.services import trigger\n@trigger(topic='x')\ndef x(event): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("topictasks", None)
    sys.modules.pop("topictriggers", None)


def settings_of(stack: StackAddresses, names: TopicNames, schema: str, lanes: int) -> Settings:
    return Settings(
        topic_prefix=names.prefix,
        lanes=lanes,
        kafka={"bootstrap_servers": stack.bootstrap_servers, "extra": {"log_level": "0"}},
        postgres={"dsn": stack.dsn, "schema_name": schema},
        outbox={"schema_name": schema},
        worker={"tasks": "topictasks"},
        triggers={"modules": "topictriggers"},
        http={"enabled": False},
        logs={"format": "json"},
    )


@contextmanager
def running(role: str, settings: Settings) -> Iterator[tuple[Health, threading.Event, Future[None]]]:
    health, stop = Health(role), threading.Event()
    runnable = ROLES[role](settings)(Meters(), health)
    with ThreadPoolExecutor(1) as executor:
        try:
            yield health, stop, executor.submit(runnable.run, stop)
        finally:
            stop.set()


def failure(err: str) -> str:
    """The reason in the one line of the log that says why the role ended."""
    (line,) = [one for one in err.splitlines() if "process.failed" in one]
    assert "Traceback" not in err
    return str(json.loads(line)["reason"])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("wrong", [1, 3])
def test_a_role_with_the_wrong_number_of_lanes_ends_and_names_the_right_one(
    role: str, wrong: int, stack: StackAddresses, topics: TopicNames, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(stack, topics, schema, wrong)
    assert run_role(role, ROLES[role](settings), settings) == 2
    assert failure(capsys.readouterr().err).startswith(
        f"topics {topics.prefix}* have 2 partitions, not {wrong}: set JOBLOG_LANES=2"
    )


@pytest.mark.parametrize("role", ROLES)
def test_a_role_without_topics_ends_and_names_the_command_that_creates_them(
    role: str, stack: StackAddresses, names: TopicNames, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(stack, names, schema, 2)
    assert run_role(role, ROLES[role](settings), settings) == 2
    reason = failure(capsys.readouterr().err)
    assert "`joblog topics create`" in reason
    assert all(names.of(topic) in reason for topic in TOPICS_OF_ROLES[role])


@pytest.mark.parametrize("role", ROLES)
def test_a_role_waits_for_brokers_that_are_away_and_says_so(
    role: str,
    stack: StackAddresses,
    names: TopicNames,
    schema: str,
    wait_until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checking, "ANSWER_S", 0.5)
    away = StackAddresses("127.0.0.1:1", stack.dsn)
    with running(role, settings_of(away, names, schema, 2)) as (health, stop, ended):
        wait_until(lambda: "waiting for brokers" in health.reason, DEADLINE_S, "the reason")
        assert "127.0.0.1:1" in health.reason
        assert (health.ready, health.alive) == (False, True)
        stop.set()
        ended.result(DEADLINE_S)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_ends_when_somebody_adds_partitions_while_it_runs(
    role: str, stack: StackAddresses, topics: TopicNames, schema: str, wait_until: Callable[..., Any]
) -> None:
    grown: Topic = TOPICS_OF_ROLES[role][0]
    with running(role, settings_of(stack, topics, schema, 2)) as (health, _stop, ended):
        wait_until(
            lambda: health.ready or "topics that triggers name" in health.reason or ended.done(),
            DEADLINE_S,
            "readiness",
        )
        admin = clients.admin(KafkaConfig(stack.bootstrap_servers))
        for future in admin.create_partitions([NewPartitions(topics.of(grown), 4)]).values():
            future.result(DEADLINE_S)
        with pytest.raises(TopicsError, match=rf"{topics.of(grown)} has 4|have 4 partitions, not 2"):
            ended.result(DEADLINE_S)


def test_an_elector_that_is_assigned_more_partitions_than_there_are_lanes_ends(
    kafka: KafkaConfig, topics: TopicNames
) -> None:
    elector = Elector(kafka, topics, 1, instance="one", meters=Meters(), health=Health("elector"))
    with pytest.raises(TopicsError, match=r"with 1 lanes \(JOBLOG_LANES\)"):
        elector.run(threading.Event())
