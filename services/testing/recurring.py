"""Recurring jobs in memory: definitions, and what the process `joblog recurring` does, by the rules that it has."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from joblog.services.client.definitions import AnyTask
from joblog.services.client.recurring import Create, RecurringJobs
from joblog.services.testing.broker import Broker
from joblog.services.testing.told import EventLog
from joblog.streams.contract.recurring import Definition, record_key
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.recurring.deciding import planned
from joblog.streams.recurring.ends import Ends
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.rows import Row, Rows, encode_aspect


class Scheduler:
    """Creates the jobs of definitions when they are due; an alarm of the broker.

    - is_down: whether there is no such process at the moment.
    """

    def __init__(self, broker: Broker, log: EventLog, where: Installation) -> None:
        self._broker, self._where = broker, where
        self._rows = Rows()
        self._ends = Ends()
        self.is_down = False
        log.listeners.append(self._ends.take)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self._broker.now_ms / 1000, UTC)

    def write(self, recurring_id: str, kind: type[Any], aspect: Any) -> None:
        """A record of the topic `recurring`."""
        key = record_key(recurring_id, kind).encode()
        if (error := self._rows.unreadable(key, None if aspect is None else encode_aspect(aspect))) is not None:
            raise InvalidData(error.reason)
        self._broker.settle()

    def rows(self) -> list[Row]:
        """The definitions as whoever reads the topic has them."""
        return [replace(row) for row in self._rows.defined()]

    def next_ms(self) -> int | None:
        if self.is_down:
            return None
        dues = [row.next_due or row.look_again(self.now) for row in self._rows.defined()]
        due = min((one for one in dues if one is not None), default=None)
        return None if due is None else -(-(due - _EPOCH) // timedelta(milliseconds=1))

    def look(self) -> bool:
        """Decide on each definition whose time has come; then the commands, then what is noted of them."""
        if self.is_down:
            return False
        now, broker = self.now, self._broker
        rows = self._rows.defined()
        plans = [made for row in rows if (made := planned(row, self._is_running, now, self._where)) is not None]
        for made in plans:
            for command in made.commands:
                self._ends.watch(command.job_id)
                broker.command(command.lane, command.value)
            for key, value in made.notes(now):
                self._rows.apply(key.encode(), value)
        return bool(plans)

    @contextmanager
    def down(self) -> Iterator[None]:
        """The process is not there in this block; at its end it decides on what was due meanwhile."""
        self.is_down = True
        try:
            yield
        finally:
            self.is_down = False
            self._broker.settle()

    def _is_running(self, job_id: str) -> bool:
        return not self._ends.jobs[job_id]


_EPOCH = datetime.fromtimestamp(0, UTC)


class RecurringInMemory(RecurringJobs):
    """`joblog.recurring`: the records of its definitions go to the scheduler."""

    def __init__(
        self,
        scheduler: Scheduler,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        create: Create,
        learn: Callable[[AnyTask], object],
    ) -> None:
        super().__init__(config, names, lanes, "in-memory", create)
        self._scheduler, self._learn = scheduler, learn

    def add_or_update(
        self, recurring_id: str, task: AnyTask, schedule: str | timedelta, **options: Any
    ) -> Definition:
        """As `RecurringJobs.add_or_update`."""
        self._learn(task)
        return super().add_or_update(recurring_id, task, schedule, **options)

    def _now(self) -> datetime:
        return self._scheduler.now

    def _read(self, _partitions: Sequence[int] | None) -> tuple[Sequence[Row], Sequence[str]]:
        return self._scheduler.rows(), []

    def _send(self, recurring_id: str, aspects: Sequence[tuple[Any, Any]]) -> None:
        for kind, aspect in aspects:
            self._scheduler.write(recurring_id, kind, aspect)
