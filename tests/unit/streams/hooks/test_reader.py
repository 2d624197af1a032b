"""The member of the group that calls hooks, beside a consumer that has no broker."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from joblog.services.hooks.hook import on_transition
from joblog.streams.contract.states import State
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.hooks import reader as reading
from joblog.streams.hooks.reader import TransitionReader
from joblog.streams.hooks.transition import Transition
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.patience import Patience

from tests.support.projection_events import Story

EVENTS = 200


class Message:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None: ...
    def key(self) -> None: ...
    def topic(self) -> str:
        return "t.events"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1

    def value(self) -> bytes:
        return Story(random=self._offset + 1).enqueued().values[0]


class Consumer:
    """One lane of `EVENTS` events, whose group rebalances in the poll of this number."""

    def __init__(self, rebalances_at: int, polled: Callable[[int], object]) -> None:
        self.rebalances_at, self.polled = rebalances_at, polled
        self.polls = self.position = self.committed_at = 0
        self.is_paused = True

    def subscribe(self, _topics: list[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self._on_assign, self._on_revoke, self._on_lost = on_assign, on_revoke, on_lost

    def poll(self, _timeout_s: float) -> Message | None:
        self.polls += 1
        self.polled(self.polls)
        if self.polls == self.rebalances_at:
            self._on_revoke(self, [TopicPartition("t.events", 0)])
        if self.polls in {1, self.rebalances_at}:
            self._on_assign(self, [TopicPartition("t.events", 0)])
        if self.is_paused or self.position == EVENTS:
            return None
        self.position += 1
        return Message(self.position - 1)

    def committed(self, asked: list[TopicPartition], **_: Any) -> list[TopicPartition]:
        return [TopicPartition(one.topic, one.partition, self.committed_at) for one in asked]

    def assign(self, starts: list[TopicPartition]) -> None:
        self.position = starts[0].offset

    def pause(self, _places: list[TopicPartition]) -> None:
        self.is_paused = True

    def resume(self, places: list[TopicPartition]) -> None:
        self.is_paused = self.is_paused and not places

    def commit(self, offsets: list[TopicPartition], **_: Any) -> None:
        self.committed_at = offsets[0].offset

    def close(self) -> None: ...


def test_what_comes_with_a_rebalance_waits_for_the_function_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane that goes and comes back within one poll is read on only when the hook has returned."""
    stop, goes_on, told = threading.Event(), threading.Event(), list[str]()
    early: list[int] = []

    def polled(number: int) -> None:
        early.append(len(reader._early))
        if number == 50:
            goes_on.set()

    @on_transition(states=State.ENQUEUED)
    def hook(transition: Transition) -> None:
        assert goes_on.wait(10)
        told.append(transition.job_id)
        if len(told) == EVENTS:
            stop.set()

    consumer = Consumer(5, polled)
    monkeypatch.setattr(reading, "BRIEF_S", 0.01)
    monkeypatch.setattr(reading.clients, "group_consumer", lambda *_, **__: consumer)
    reader = TransitionReader(
        KafkaConfig("nowhere:1"),
        TopicNames("t."),
        [hook],
        group="g",
        start="earliest",
        patience=Patience(1, 0.01, 0.01),
        meters=Meters(),
        health=Health("hooks"),
    )
    reader.run(stop)
    assert told == [Story(random=n + 1).id for n in range(EVENTS)]
    assert max(early) <= 1
