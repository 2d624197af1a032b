"""An installation for acceptance tests: real roles as processes of their own, killed and restarted at will."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from joblog.projections.schema import migrate
from joblog.services.client.client import Client
from joblog.services.embedded.stack import EmbeddedStack
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig
from msgspec import json

from tests.support.log_comparison import differences, read_log

#: Tasks of the jobs; each run leaves a line in the ledger before it does anything else.
TASKS = """
import os, signal, time
from joblog.services.tasks.context import current_job
from joblog.services.tasks.task import task
from joblog.streams.contract.retry import Curve, RetryPolicy

def note():
    job = current_job()
    line = f"{job.job_id} {job.attempt} {job.worker}\\n".encode()
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, line)
    os.close(ledger)
    return job

@task("ok")
def ok(number):
    note()
    return number

@task("told")
def told():
    said = lambda end: [end.state, end.result, end.exception and end.exception.message]
    return {parent: said(end) for parent, end in note().parents.items()}

@task("slow")
def slow(seconds):
    note()
    time.sleep(seconds)

@task("flaky", retry=RetryPolicy(attempts=20, curve=Curve.FIXED, delays_s=(0.2,)))
def flaky():
    job = note()
    if job.attempt < 2:
        raise ConnectionError("not yet")

@task("bad", retry=RetryPolicy(attempts=1, curve=Curve.FIXED, delays_s=(0.1,)))
def bad():
    note()
    raise ValueError("never")

@task("crash")
def crash():
    if note().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)

@task("second", retry=RetryPolicy.none())
def second():
    if note().attempt == 1:
        raise ValueError("not at first")
    time.sleep(60)
"""


class Installation:
    """Topics, tables and roles of one test."""

    def __init__(
        self, kafka: KafkaConfig, dsn: str, names: TopicNames, schema: str, home: Path, lanes: int = 2
    ) -> None:
        self.kafka, self.dsn, self.names, self.schema, self.home = kafka, dsn, names, schema, home
        self.lanes = lanes
        self.ledger = home / "ledger"
        (home / "acceptance_tasks.py").write_text(TASKS)
        self.roles: dict[str, subprocess.Popen[bytes]] = {}
        self.kills: Counter[str] = Counter()
        #: When the processes that were killed had ended, by the machine's monotonic clock, nanoseconds.
        self.deaths: dict[int, int] = {}
        self.extra: dict[str, str] = {}
        create_topics(kafka, names, self.lanes)
        migrate.upgrade(dsn, schema)

    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("JOBLOG_")},
            "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "JOBLOG_POSTGRES__DSN": self.dsn,
            "JOBLOG_POSTGRES__SCHEMA_NAME": self.schema,
            "JOBLOG_TOPIC_PREFIX": self.names.prefix,
            "JOBLOG_LANES": str(self.lanes),
            "JOBLOG_ELECTOR__LEASE_S": "6",
            "JOBLOG_WORKER__RENEW_S": "1",
            "JOBLOG_WORKER__TASKS": "acceptance_tasks",
            "JOBLOG_WORKER__SLOTS": "8",
            "JOBLOG_WORKER__PREFETCH": "20",
            "JOBLOG_LOGS__LEVEL": "WARNING",
            "LEDGER": str(self.ledger),
            **self.extra,
        }

    def start(self, role: str, *more: str, **variables: str) -> None:
        """Start a role with more arguments and environment variables than it has anyway."""
        kind, _, name = role.partition("-")
        arguments = {"elector": ["--id", name or "e"], "worker": ["--name", role]}.get(kind, [])
        with (self.home / f"{role}.log").open("ab") as log:
            self.roles[role] = subprocess.Popen(
                [sys.executable, "-m", "joblog.services.cli", kind, *arguments, *more],
                cwd=self.home,
                env=self.environment() | variables,
                stdout=log,
                stderr=log,
            )

    def kill(self, role: str) -> None:
        process = self.roles[role]
        assert process.poll() is None, f"{role} ended by itself:\n{(self.home / f'{role}.log').read_text()[-3000:]}"
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.deaths[process.pid] = time.monotonic_ns()
        self.kills[role] += 1

    def stop(self) -> None:
        for process in self.roles.values():
            process.kill()
            process.wait()

    def client(self) -> Client:
        return Client(self.kafka, self.names, self.lanes)

    def events(self) -> dict[str, list[dict[str, Any]]]:
        """All job events of the log, by job, in order."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in read_log(self.kafka, self.names, self.lanes):
            event = json.decode(record.value)
            if event["type"].startswith("job."):
                found[event["subject"]].append(event)
        return found

    def differences(self) -> list[str]:
        """Where Postgres differs from the fold of the log."""
        return differences(self.dsn, self.schema, read_log(self.kafka, self.names, self.lanes))

    def runs(self) -> Counter[tuple[str, int]]:
        """How often each attempt of each job was started, by the tasks' own account."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return Counter((job, int(attempt)) for job, attempt, _worker in (line.split() for line in lines))


@pytest.fixture
def installation(
    kafka: KafkaConfig, stack: Any, topics: TopicNames, schema: str, tmp_path: Path, lanes: int
) -> Iterator[Installation]:
    made = Installation(kafka, stack.dsn, topics, schema, tmp_path, lanes)
    yield made
    made.stop()


@pytest.fixture
def install(schema: str, tmp_path: Path, prefix: str) -> Iterator[Callable[[KafkaConfig, str], Installation]]:
    """An installation on servers of the test's own."""
    made = []

    def build(kafka: KafkaConfig, dsn: str) -> Installation:
        made.append(Installation(kafka, dsn, TopicNames(prefix), "joblog", tmp_path))
        return made[-1]

    yield build
    for one in made:
        one.stop()


@pytest.fixture
def own_stack() -> Iterator[EmbeddedStack]:
    """Servers of the test's own, which it may stop."""
    with TemporaryDirectory(prefix="joblog-outage-") as directory, EmbeddedStack(Path(directory)) as started:
        yield started


class Killer(threading.Thread):
    """Kills one role after the other with SIGKILL, and starts it again."""

    def __init__(self, installation: Installation, roles: list[str], pause_s: float) -> None:
        super().__init__(daemon=True)
        self.installation, self.order, self.pause_s = installation, roles, pause_s
        self.done, self.error = threading.Event(), ""

    def run(self) -> None:
        try:
            for role in self.order:
                if self.done.wait(self.pause_s):
                    return
                self.installation.kill(role)
                time.sleep(0.2)
                self.installation.start(role)
        except AssertionError as error:
            self.error = str(error)


@pytest.fixture
def killer() -> type[Killer]:
    return Killer


FINAL = {"job.succeeded", "job.failed", "job.deleted"}


def ends(events: list[dict[str, Any]]) -> list[str]:
    """The final events of a job: a failure that was retried is none."""
    return [event["type"] for event in events if event["type"] in FINAL and not event["data"].get("traversed")]


@pytest.fixture
def check_log() -> Callable[[Installation, dict[str, str]], None]:
    """Every job ended once, as it should; versions have no gap; no attempt was given to two workers."""

    def check(installation: Installation, expected: dict[str, str]) -> None:
        log = installation.events()
        assert expected.keys() == log.keys()
        for job, events in log.items():
            assert [event["data"]["version"] for event in events] == list(range(1, len(events) + 1)), job
            assert ends(events) == [expected[job]], (job, [event["type"] for event in events])
        runs = installation.runs()
        assert max(runs.values()) == 1, [run for run, times in runs.items() if times > 1]
        processing = {
            (job, event["data"]["attempt"])
            for job, events in log.items()
            for event in events
            if event["type"] == "job.processing"
        }
        assert runs.keys() <= processing

    return check
