"""An outbox in a test's own schema, with relays of it in threads or processes, and what they put into the log."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from threading import Event, Thread
from typing import Any, Final

import psycopg
from confluent_kafka import Message
from joblog.projections.outbox.relay import Relay
from joblog.projections.outbox.rows import OutboxRows
from joblog.services.outbox.outbox import Outbox
from joblog.services.settings.model import Settings
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.last_records import last_records
from joblog.streams.metrics import Meters
from joblog.streams.outbox.log import OutboxLog

DEADLINE_S: Final = 30


@dataclass(frozen=True)
class OutboxWorld:
    kafka: KafkaConfig
    dsn: str
    names: TopicNames
    lanes: int
    schema: str

    @property
    def settings(self) -> Settings:
        return Settings(
            topic_prefix=self.names.prefix,
            lanes=self.lanes,
            kafka={"bootstrap_servers": self.kafka.bootstrap_servers},
            postgres={"dsn": self.dsn},
            outbox={"schema_name": self.schema},
        )

    def create(self) -> None:
        with self.connect() as connection:
            Outbox.create_table(connection, schema=self.schema)

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn, **options)

    def outbox(self, connection: Any) -> Outbox:
        return Outbox(connection, self.settings)

    def relay(self, **options: Any) -> Relay:
        """A relay that looks by itself so rarely that a test would notice if it were not told of rows."""
        chosen = {"meters": Meters(), "health": Health("outbox"), "poll_s": 60.0, **options}
        return Relay(self.kafka, self.names, self.lanes, self.dsn, self.schema, **chosen)

    @contextmanager
    def relaying(self, **options: Any) -> Iterator[Relay]:
        relay, stop = self.relay(**options), Event()
        thread = Thread(target=relay.run, args=(stop,))
        thread.start()
        try:
            yield relay
        finally:
            stop.set()
            thread.join(DEADLINE_S)
            assert not thread.is_alive()

    def waiting(self) -> int:
        with OutboxRows(self.dsn, self.schema) as rows:
            return rows.status().waiting

    def records(self) -> list[Message]:
        """The committed commands, lane by lane."""
        with closing(clients.reader(self.kafka, f"{self.names.prefix}test")) as reader:
            found = list(last_records(reader, self.names.commands, 1_000_000, DEADLINE_S))
        return sorted(found, key=lambda record: (record.partition() or 0, record.offset() or 0))

    def relayed(self) -> list[str]:
        """The job ids of the committed commands, each as often as it is there."""
        return [(record.key() or b"").decode() for record in self.records()]

    def die_at(self, step: str) -> int:
        """Let a relay in a process of its own relay until this step, at which SIGKILL hits; returns the exit code."""
        process = _processes().Process(target=_relay_until, args=(self, step))
        _run(process)
        assert process.exitcode is not None
        return process.exitcode


def outbox_of(installation: Any) -> OutboxWorld:
    """The outbox of an installation of acceptance tests, in its schema."""
    return OutboxWorld(
        installation.kafka, installation.dsn, installation.names, installation.lanes, installation.schema
    )


def _processes() -> Any:
    """Processes that begin without the threads of this one, and with what they need imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _run(process: BaseProcess) -> None:
    process.start()
    process.join(DEADLINE_S)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError("the relay did not come to the step at which it was to die")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: type, name: str) -> None:
    """Die where this method is called."""
    setattr(owner, name, lambda *_args, **_named: _die())


def _after(owner: type, name: str) -> None:
    """Die when this method has returned."""
    method = getattr(owner, name)

    def call(*args: Any, **named: Any) -> None:
        method(*args, **named)
        _die()

    setattr(owner, name, call)


def _sent_not_committed() -> None:
    """Die when all records of the transaction are at the broker, and its commit is not."""

    class Producer:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def commit_transaction(self, _timeout_s: float) -> None:
            assert self._real.flush(DEADLINE_S) == 0
            _die()

    make = clients.transactional_producer
    clients.transactional_producer = lambda *args: Producer(make(*args))  # type: ignore[assignment,return-value]


#: Between every two steps of the relay, how it comes to die there.
STEPS: Final[dict[str, Callable[[], None]]] = {
    "before the commands are sent": lambda: _before(OutboxLog, "send"),
    "before the transaction is committed": _sent_not_committed,
    "before the rows are deleted": lambda: _after(OutboxLog, "send"),
    "after the rows are deleted": lambda: _after(OutboxRows, "delete"),
    "before the mark is read": lambda: _before(OutboxLog, "_last_mark"),
    "before the mark's rows are deleted": lambda: _after(OutboxRows, "named"),
}


def _relay_until(world: OutboxWorld, step: str) -> None:
    STEPS[step]()
    world.relay().run(Event())
