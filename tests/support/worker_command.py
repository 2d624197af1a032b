"""The command `joblog worker` as a process of its own, for which the test plays the elector."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import WorkerAnnounced
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.worker_elector import TIMEOUT_S, Elector


class WorkerCommand:
    """A running `joblog worker`, in a process group of its own."""

    def __init__(self, elector: Elector, process: subprocess.Popen[str]) -> None:
        self.elector, self.process = elector, process

    def end(self) -> list[str]:
        """The log of a worker that was told to stop, once its process has ended with code 0."""
        _, err = self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0, err
        return err.splitlines()


@contextmanager
def worker_command(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, directory: Path, tasks: str, slots: int = 2, **env: str
) -> Iterator[WorkerCommand]:
    """Start a worker with tasks of this source, and kill what is left of it at the end."""
    (directory / "command_tasks.py").write_text(tasks)
    environment = {
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "JOBLOG_TOPIC_PREFIX": topics.prefix,
        "JOBLOG_LANES": str(lanes),
        "JOBLOG_HTTP__ENABLED": "false",
    }
    elector = Elector(kafka, topics, lanes)
    process = subprocess.Popen(
        [sys.executable, "-m", "joblog.services.cli", "worker", "--tasks", "command_tasks", "--slots", str(slots)],
        env={**os.environ, **environment, **env},
        cwd=directory,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        elector.until(lambda: elector.of(WorkerAnnounced))
        yield WorkerCommand(elector, process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        elector.close()
