"""The projector's end of the log, with a client that hands out what was fetched before."""

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError
from joblog.projections.projector.log import EventLog
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters


@dataclass
class Fetched:
    """A record of a lane, or the lane's end as it was when the records before were fetched."""

    lane: int
    place: int
    is_end: bool = False

    def error(self) -> KafkaError | None:
        return KafkaError(KafkaError._PARTITION_EOF) if self.is_end else None

    def partition(self) -> int:
        return self.lane

    def offset(self) -> int:
        return self.place

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def value(self) -> bytes:
        return b"{}"

    def headers(self) -> None:
        return None


@dataclass
class Client:
    """Has these in its queue, in this order; `waits`: for how long it was asked to wait, each time."""

    queue: deque[Fetched]
    waits: list[float] = field(default_factory=list)

    def list_topics(self, topic: str, _timeout_s: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: 0, 1: 1})})

    def assign(self, _partitions: Any) -> None: ...

    def consume(self, most: int, timeout_s: float) -> list[Fetched]:
        if timeout_s:
            self.waits.append(timeout_s)
        return [self.queue.popleft() for _ in range(min(most, len(self.queue)))]


def log_of(monkeypatch: pytest.MonkeyPatch, *fetched: Fetched) -> tuple[EventLog, Client]:
    client = Client(deque(fetched))
    monkeypatch.setattr(clients, "reader", lambda *_, **__: client)
    return EventLog(KafkaConfig("nowhere:1"), "events", 2, {0: 0, 1: 0}, Meters()), client


def places(log: EventLog, most: int, timeout_s: float = 0.25) -> list[tuple[int, int]]:
    return [(record.lane, record.offset) for record in log.read(most, timeout_s)]


def test_what_lies_behind_ends_of_lanes_is_read_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    log, client = log_of(
        monkeypatch,
        Fetched(0, 0),
        Fetched(0, 1, is_end=True),
        Fetched(1, 0, is_end=True),
        Fetched(0, 1),
        Fetched(1, 0),
    )
    assert places(log, 2) == [(0, 0)]
    assert places(log, 1) == [(0, 1)]
    assert places(log, 9) == [(1, 0)]
    assert client.waits == [0.25] * 3, "it waited for more although something was there"
    assert log.ended


def test_nothing_is_returned_only_if_nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    log, client = log_of(monkeypatch, Fetched(0, 0, is_end=True), Fetched(1, 0, is_end=True))
    assert places(log, 500) == []
    assert client.waits == [0.25]
