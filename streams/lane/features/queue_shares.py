"""What the lanes of a queue do with its limit: the steps of which the feature is made (queue_limits.py)."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.relations import RATES, LimitKind, LimitScope
from joblog.streams.contract.states import PROCESSING
from joblog.streams.lane.limits.gate import QueueLimit, QueueShare, SharedGate
from joblog.streams.lane.limits.queue_owner import Ownership, QueueOwner
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline

QUEUE_LIMIT_KEY: Final = "queue_limit:"
#: What follows the queue's name in the key of an owner's record; no name of a queue has it.
OWNER_KEY: Final = "/owner"


def owner_lane(lane: Pipeline, queue: str) -> int:
    """The lane that owns the limit of a queue: its first one."""
    return lane_of_queue(queue, lane.lanes)


def running_by_queue(lane: Pipeline) -> Mapping[str, int]:
    """How many jobs of each queue run in this lane: a look at all of its jobs."""
    return Counter(job.queue for job in lane.store.jobs.values() if job.state is PROCESSING)


def running_of(lane: Pipeline, queue: str) -> int:
    """How many jobs of a queue run in this lane."""
    return running_by_queue(lane).get(queue, 0)


def changed(report: wire.QueueLimitTold) -> wire.LimitChanged:
    """The event that a lane writes when its owner tells it a limit."""
    interval_s = report.interval_ms / 1000 if report.interval_ms else None
    return wire.LimitChanged(
        report.kind, report.queue, report.capacity, interval_s, LimitScope.QUEUE, report.by, report.reason
    )


def write_changed(event: wire.LimitChanged, cause: str, out: LaneOutput) -> None:
    """Write that the limit of a queue has changed."""
    out.events.append((event.key, "limit.changed", f"{cause}/limit.changed/{event.key}", event, cause, None))


def share(owner: QueueOwner, event: wire.LimitChanged | None, queue: str, lane: Pipeline, out: LaneOutput) -> None:
    """Tell all lanes the setting that an owner has begun; `event`, if a command has changed it."""
    (kind, capacity, interval_ms), number = owner.setting, owner.record.number
    for other in tuple(owner.record.silent):
        if other == lane.number:
            owner.joined(other, number, take_in(lane, queue, kind, capacity, interval_ms, number, out))
            continue
        by, reason = (None, None) if event is None else (event.by, event.reason)
        said = wire.QueueLimitTold(
            queue=queue, number=number, kind=kind, capacity=capacity or None, interval_ms=interval_ms,
            changed=event is not None, by=by, reason=reason,
        )  # fmt: skip
        out.reports.append((other, queue, said))


def take_in(
    lane: Pipeline, queue: str, kind: LimitKind, capacity: int, interval_ms: int, number: int, out: LaneOutput
) -> int:
    """Begin a setting in this lane, without anything to start jobs with; returns how many of them run."""
    store = lane.store
    store.has_released = True
    if not capacity:
        store.gates.pop(queue, None)
        out.state[QUEUE_LIMIT_KEY + queue] = None
        return 0
    running = running_of(lane, queue)
    begun = QueueShare(kind, capacity, interval_ms, number, 0 if kind in RATES else running)
    store.gates[queue] = joined(lane, queue, SharedGate(begun, running))
    out.state[QUEUE_LIMIT_KEY + queue] = begun
    return running


def joined(lane: Pipeline, queue: str, gate: SharedGate) -> SharedGate:
    """The gate; in the owner's lane it takes what it needs from there at once."""
    owner = lane.store.owners.get(queue)
    if owner is not None:
        gate.take = owner.take
    return gate


def settle(owner: QueueOwner, queue: str, now_ms: int, lane: Pipeline, out: LaneOutput) -> None:
    """Give out what the owner in this lane can give out."""
    for other, times in owner.settle(now_ms).items():
        others_wait = owner.others_wait(other)
        if other != lane.number:
            said = wire.QueueLimitGiven(queue=queue, number=owner.record.number, times=times, others_wait=others_wait)
            out.reports.append((other, queue, said))
            continue
        gate = lane.store.gates[queue]
        assert isinstance(gate, SharedGate)
        gate.give(times, others_wait)
        lane.store.has_released = True


def forget_if_over(owner: QueueOwner, queue: str, lane: Pipeline, out: LaneOutput) -> None:
    """Drop an owner whose limit was taken away, once all lanes know it."""
    if owner.is_over:
        del lane.store.owners[queue]
        out.state[QUEUE_LIMIT_KEY + queue + OWNER_KEY] = None


def own(lane: Pipeline, queue: str, known: QueueLimit) -> QueueOwner:
    """The owner of a queue's limit in this lane, which is its first one; a new one begins with what is known."""
    found = lane.store.owners.get(queue)
    if found is None:
        record = Ownership(known.kind, known.capacity, known.interval_ms, 0, known.rate)
        found = lane.store.owners[queue] = QueueOwner(record, lane.number)
    return found
