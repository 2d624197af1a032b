"""A recurring process in a thread, its clock, and what it wrote."""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from joblog.streams.contract.recurring import Definition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig, reader
from joblog.streams.kafka.last_records import last_records
from joblog.streams.metrics import Meters
from joblog.streams.recurring.jobs import Installation, partition_of
from joblog.streams.recurring.process import Recurring
from joblog.streams.recurring.rows import encode_aspect
from joblog.streams.recurring.sender import Record, Sender
from msgspec import json

#: Partition, key and value of a record of `recurring`.
Written = tuple[int, str | bytes, bytes | None]

STOP_S = 30


class Clock:
    """A clock that tests set: it stands still, or runs beside the real one."""

    def __init__(self, at: datetime | None = None) -> None:
        self.at, self.ahead = at, timedelta(0)

    def __call__(self) -> datetime:
        return (datetime.now(UTC) if self.at is None else self.at) + self.ahead


class Scheduler:
    """Runs from the beginning of a block to its end; `begin` is waited for before it joins the group."""

    def __init__(
        self,
        kafka: KafkaConfig,
        names: TopicNames,
        lanes: int,
        clock: Callable[[], datetime] | None = None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.meters, self.health, self._stop = Meters(), Health("recurring"), threading.Event()
        self.process = Recurring(
            kafka,
            names,
            Installation(lanes, {}, {}),
            meters=self.meters,
            health=self.health,
            prepare=begin,
            clock=clock or Clock(),
        )
        self._thread = threading.Thread(target=self.process.run, args=(self._stop,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(STOP_S)
        assert not self._thread.is_alive()

    def count(self, metric: str, **labels: str) -> float:
        """What a metric of it says."""
        return self.meters.registry.get_sample_value(metric, labels) or 0


def write_definition(kafka: KafkaConfig, names: TopicNames, lanes: int, definition: Definition) -> None:
    """Write it as it is; a client would set when it begins."""
    write(kafka, names, [(partition_of(definition.id, lanes), definition.id, encode_aspect(definition))])


def write(kafka: KafkaConfig, names: TopicNames, records: Sequence[Written]) -> None:
    """Write to the topic `recurring`."""
    sender = Sender(kafka, f"{names.prefix}test")
    sender.send([Record(names.recurring, number, key, value) for number, key, value in records])
    sender.close()


def commands(kafka: KafkaConfig, names: TopicNames, kind: str = "job.create") -> list[dict[str, Any]]:
    """The commands of this type in the log."""
    consumer = reader(kafka, f"{names.prefix}look")
    try:
        records = [json.decode(one.value() or b"") for one in last_records(consumer, names.commands, 100_000, 20)]
    finally:
        consumer.close()
    return [one for one in records if one["type"] == kind]


def occurrences(kafka: KafkaConfig, names: TopicNames) -> dict[str, list[datetime]]:
    """The occurrences for which there are commands, as often as there are, in order, by their definitions."""
    found: dict[str, list[datetime]] = defaultdict(list)
    for one in commands(kafka, names):
        parameters = one["data"]["parameters"]
        found[parameters["RecurringJobId"]].append(datetime.fromisoformat(parameters["Time"]))
    return defaultdict(list, {recurring_id: sorted(times) for recurring_id, times in found.items()})
