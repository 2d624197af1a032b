"""The embedded stack: a real Kafka broker and a real Postgres as child processes, in one directory.

Nothing has to be installed: the Java runtime and Postgres come as Python packages, Kafka is downloaded from Maven
once. One process owns a directory at a time (a file lock). Servers whose owner was killed end by themselves
(guard.py); those that still run at the next start are stopped first.
"""

import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from joblog.services.embedded.kafka import EmbeddedKafka
from joblog.services.embedded.ports import HOST, choose_ports
from joblog.services.embedded.postgres import EmbeddedPostgres
from joblog.streams.errors import StackError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StackAddresses:
    """Where the stack's two servers listen; a part that was left out has an empty address."""

    bootstrap_servers: str
    dsn: str


def log_progress(line: str) -> None:
    """Log a line of progress: the default for callers that show none."""
    log.info("embedded.progress", extra={"line": line})


class EmbeddedStack:
    """Kafka and Postgres in `directory`; a port that is not given is picked, and kept for later starts."""

    def __init__(
        self,
        directory: Path,
        *,
        kafka_port: int | None = None,
        postgres_port: int | None = None,
        progress: Callable[[str], None] = log_progress,
        kafka: bool = True,
        postgres: bool = True,
    ) -> None:
        self.directory = directory.expanduser().resolve()
        self._wanted: dict[str, int | None] = {}
        self._progress = progress
        self._kafka: EmbeddedKafka | None = None
        self._postgres: EmbeddedPostgres | None = None
        if kafka:
            self._kafka = EmbeddedKafka(self.directory / "kafka", progress)
            self._wanted |= {"Kafka": kafka_port, "Kafka's controller": None}
        if postgres:
            self._postgres = EmbeddedPostgres(self.directory / "postgres", progress)
            self._wanted |= {"Postgres": postgres_port}
        self._lock = FileLock(self.directory / "stack.lock", timeout=0, thread_local=False)
        self._owner_file = self.directory / "owner.pid"
        self._ports: dict[str, int] = {}
        self._addresses: StackAddresses | None = None

    @property
    def addresses(self) -> StackAddresses:
        """Where the servers listen; StackError before the start."""
        if self._addresses is None:
            raise StackError(f"the stack in {self.directory} is not started")
        return self._addresses

    @property
    def log_files(self) -> Mapping[str, Path]:
        """The log file of each server; the console log has the output of the JVM itself."""
        files: dict[str, Path] = {}
        if self._kafka is not None:
            files |= {"kafka": self._kafka.log_file, "kafka console": self._kafka.console}
        if self._postgres is not None:
            files |= {"postgres": self._postgres.log_file}
        return files

    def start(self) -> StackAddresses:
        """Start what is not running and wait until it answers; at once when everything runs.

        Raises StackError when another process uses the directory, a given port is busy, Kafka cannot
        be fetched, or a server does not come up; nothing is left running then.
        """
        try:
            if not self._lock.is_locked:
                self._take_directory()
            return self._start()
        except OSError as exc:
            raise StackError(
                f"the stack in {self.directory} could not be started: {exc}; check rights and free space there"
            ) from exc

    def stop(self) -> None:
        """Stop both servers at the same time, and release the directory; does nothing if they were not started."""
        self._addresses = None
        servers = [server for server in (self._kafka, self._postgres) if server is not None]
        try:
            for server in servers:
                server.ask_to_stop()
            for server in servers:
                server.stop()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop_broker(self) -> None:
        """Stop the broker in order."""
        self._broker().stop()

    def kill_broker(self) -> None:
        """Crash the broker (SIGKILL)."""
        self._broker().stop(signal.SIGKILL)

    def start_broker(self) -> None:
        """Start the broker again, on its old port, and wait until it answers."""
        broker = self._broker()
        broker.launch(self._port("Kafka"), self._port("Kafka's controller"))
        broker.wait_until_ready()

    def stop_postgres(self, *, immediate: bool = False) -> None:
        """Stop Postgres: in order, disconnecting its clients, or `immediate`, which is a crash."""
        self._database().stop(signal.SIGQUIT if immediate else signal.SIGINT)

    def start_postgres(self) -> None:
        """Start Postgres again, on its old port, and wait until it answers."""
        database = self._database()
        database.launch(self._port("Postgres"))
        database.wait_until_ready()

    def _take_directory(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as exc:
            owner = self._owner_file.read_text().strip() if self._owner_file.exists() else "unknown"
            raise StackError(
                f"{self.directory} is in use by another Joblog stack (process {owner}): "
                "stop that one, or choose another directory"
            ) from exc
        self._owner_file.write_text(f"{os.getpid()}\n")

    def _start(self) -> StackAddresses:
        try:
            if self._addresses is None:
                self._prepare()
            self._launch()
        except BaseException:
            self.stop()
            raise
        return self.addresses

    def _prepare(self) -> None:
        """Stop servers left behind, since they hold the remembered ports; then choose the ports."""
        for server in (self._kafka, self._postgres):
            if server is not None:
                server.stop_orphan()
        self._ports = choose_ports(self.directory / "ports.json", self._wanted, self._progress)

    def _launch(self) -> None:
        """Start what is not running, both servers at the same time."""
        if self._kafka is not None:
            self._kafka.launch(self._port("Kafka"), self._port("Kafka's controller"))
        if self._postgres is not None:
            self._postgres.launch(self._port("Postgres"))
            self._postgres.wait_until_ready()
        if self._kafka is not None:
            self._kafka.wait_until_ready()
        self._addresses = StackAddresses(
            bootstrap_servers=f"{HOST}:{self._port('Kafka')}" if self._kafka is not None else "",
            dsn=self._postgres.dsn(self._port("Postgres")) if self._postgres is not None else "",
        )

    def _port(self, name: str) -> int:
        if name not in self._ports:
            raise StackError(f"the stack in {self.directory} is not started")
        return self._ports[name]

    def _broker(self) -> EmbeddedKafka:
        if self._kafka is None:
            raise StackError("this stack was made without Kafka")
        return self._kafka

    def _database(self) -> EmbeddedPostgres:
        if self._postgres is None:
            raise StackError("this stack was made without Postgres")
        return self._postgres
