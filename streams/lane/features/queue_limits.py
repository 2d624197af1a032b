"""Limits of queues: mutexes, semaphores and rates of all jobs of a queue, whatever limits they have themselves.

They are set by commands, in each lane of the queue for itself. A job that may not start stays in its queue, so
nothing is written of it; a queue without a limit costs a look in each turn (Workers.assign).
"""

from typing import ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.lane.feature import Feature
from joblog.streams.lane.limits.gate import Gate, QueueLimit
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Rejection
from msgspec import msgpack

QUEUE_LIMIT_KEY: Final = "queue_limit:"


def queue_limit(event: wire.LimitChanged) -> QueueLimit:
    """The record that an event leads to; it has a capacity."""
    interval_ms = 0 if event.interval_s is None else max(round(event.interval_s * 1000), 1)
    return QueueLimit(event.kind, event.capacity or 1, interval_ms)


def spent(limit: QueueLimit, now_ms: int) -> QueueLimit:
    """The limit as it is where nobody knows which jobs started before: as if all that may had started now."""
    gate = Gate(limit)
    for _ in range(limit.capacity if gate.rate is not None else 0):
        gate.started(now_ms)
    return gate.record()


def set_queue_limit(
    lane: Pipeline, received: wire.Received, said: wire.SetLimit, out: LaneOutput
) -> Rejection | None:
    """Give a queue a limit, or take it away; returns why that is not done."""
    gates, queue = lane.store.gates, said.key
    if not lane.has_queue(queue):
        return Rejection("wrong_lane", f"queue {queue} does not live in lane {lane.number}")
    event = wire.LimitChanged(said.kind, queue, said.capacity, said.interval_s, said.scope, said.by, said.reason)
    if said.capacity is None:
        gates.pop(queue, None)
        out.state[QUEUE_LIMIT_KEY + queue] = None
    else:
        before = gates.get(queue)
        limit = queue_limit(event)
        if before is not None and before.limit.kind is limit.kind:
            limit.rate = before.record().rate
        gates[queue] = Gate(limit)
        out.state[QUEUE_LIMIT_KEY + queue] = limit
    lane.store.has_released = True
    out.events.append((queue, "limit.changed", f"{received.id}/limit.changed/{queue}", event, received.id, None))
    return None


class QueueLimits(Feature):
    """The limits of the queues of a lane."""

    prefix: ClassVar = QUEUE_LIMIT_KEY
    decoder: ClassVar = msgpack.Decoder(QueueLimit)

    def load(self, key: str, value: QueueLimit, clock_ms: int) -> None:
        self.pipeline.store.gates[key] = Gate(value)

    def wakes_ms(self) -> int | None:
        return min((gate.wake_ms for gate in self.pipeline.store.gates.values() if gate.wake_ms), default=None)

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Let a turn follow when the time of a rate has come."""
        for gate in self.pipeline.store.gates.values():
            if gate.wake_ms is not None and gate.wake_ms <= election.now_ms:
                gate.wake_ms = None
                self.pipeline.store.has_released = True

    def turn_ended(self, out: LaneOutput) -> None:
        for queue, gate in self.pipeline.store.gates.items():
            if gate.is_changed:
                out.state[QUEUE_LIMIT_KEY + queue] = gate.record()
