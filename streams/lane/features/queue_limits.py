"""Limits of queues: mutexes, semaphores and rates of all jobs of a queue, whatever limits they have themselves.

A job that may not start stays in its queue, so nothing is written of it; a queue without a limit costs a look in each
turn (Workers.assign). Any lane may have jobs of a queue (queues_elsewhere.py), so all lanes know its limit: the first
lane of the queue owns it (queue_owner.py), and each lane starts jobs with what it got from there. Where there is only
one lane, that counts for itself (gate.py).

What is lost with the `state` of a lane is made good by joining anew: the lane asks for that, or its owner tells all.
Until then none of its jobs starts.
"""

from collections.abc import Mapping
from typing import ClassVar

from joblog.streams.contract import wire
from joblog.streams.contract.relations import LimitKind
from joblog.streams.lane.feature import Feature, ReportHandler
from joblog.streams.lane.features.queue_shares import (
    OWNER_KEY,
    QUEUE_LIMIT_KEY,
    changed,
    forget_if_over,
    joined,
    own,
    owner_lane,
    running_by_queue,
    running_of,
    settle,
    share,
    take_in,
    write_changed,
)
from joblog.streams.lane.limits.gate import Gate, QueueLimit, QueueShare, Said, SharedGate
from joblog.streams.lane.limits.queue_owner import Ownership, QueueOwner
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Rejection
from msgspec import msgpack


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
    lane: Pipeline, received: wire.Received, said: wire.SetLimit, election: Election, out: LaneOutput
) -> Rejection | None:
    """Give a queue a limit, or take it away, in all of its lanes; returns why that is not done."""
    queue = said.key
    if owner_lane(lane, queue) != lane.number:
        owner = owner_lane(lane, queue)
        return Rejection("wrong_lane", f"lane {owner} owns the limit of queue {queue}, and not lane {lane.number}")
    event = wire.LimitChanged(said.kind, queue, said.capacity, said.interval_s, said.scope, said.by, said.reason)
    write_changed(event, received.id, out)
    if lane.lanes > 1:
        gate, limit = lane.store.gates.get(queue), queue_limit(event)
        begun = own(lane, queue, gate.record() if isinstance(gate, Gate) else limit)
        capacity = 0 if event.capacity is None else limit.capacity
        begun.begin(limit.kind, capacity, limit.interval_ms, range(lane.lanes), election.now_ms)
        share(begun, event, queue, lane, out)
        forget_if_over(begun, queue, lane, out)
    else:
        _set_here(lane, queue, event, out)
    return None


def _set_here(lane: Pipeline, queue: str, event: wire.LimitChanged, out: LaneOutput) -> None:
    """The same for a queue that lives in this lane only."""
    gates = lane.store.gates
    lane.store.has_released = True
    if event.capacity is None:
        gates.pop(queue, None)
        out.state[QUEUE_LIMIT_KEY + queue] = None
        return
    before, limit = gates.get(queue), queue_limit(event)
    if isinstance(before, Gate) and before.limit.kind is limit.kind:
        limit.rate = before.record().rate
    gates[queue] = Gate(limit, running_of(lane, queue))
    out.state[QUEUE_LIMIT_KEY + queue] = limit


class QueueLimits(Feature):
    """The limits of the queues of a lane."""

    prefix: ClassVar = QUEUE_LIMIT_KEY
    decoder: ClassVar = msgpack.Decoder(QueueLimit | QueueShare | Ownership)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        #: Limits of queues that this lane has to join anew.
        self._to_join: list[str] = []
        self._has_lost_reports = False

    # --- loading ---

    def reports_lost(self) -> None:
        self._has_lost_reports = True

    def load(self, key: str, value: QueueLimit | QueueShare | Ownership, clock_ms: int) -> None:
        store = self.pipeline.store
        if isinstance(value, Ownership):
            store.owners[key.removesuffix(OWNER_KEY)] = QueueOwner(value, self.pipeline.number)
        else:
            store.gates[key] = SharedGate(value) if isinstance(value, QueueShare) else Gate(value)

    def loaded(self, clock_ms: int) -> None:
        lane, gates = self.pipeline, self.pipeline.store.gates
        running = running_by_queue(lane) if gates else {}
        for queue, gate in gates.items():
            gate.running = running.get(queue, 0)
            if isinstance(gate, SharedGate):
                joined(lane, queue, gate)
                if self._has_lost_reports or self._lacks_lanes(queue):
                    self._to_join.append(queue)
            elif lane.lanes > 1:
                self._to_join.append(queue)
        for queue in self._to_join:
            self._close(queue)

    def _lacks_lanes(self, queue: str) -> bool:
        """Whether this lane owns the limit, and there are lanes that its record does not know."""
        lane = self.pipeline
        if owner_lane(lane, queue) != lane.number:
            return False
        owner = lane.store.owners.get(queue)
        return owner is None or not owner.lanes.issuperset(range(lane.lanes))

    def _close(self, queue: str) -> None:
        """Let no job start before the lane has joined the limit."""
        lane, before = self.pipeline, self.pipeline.store.gates[queue]
        if isinstance(before, SharedGate):
            return
        if owner_lane(lane, queue) == lane.number:
            own(lane, queue, before.record())
        closed = QueueShare(before.limit.kind, before.limit.capacity, before.limit.interval_ms)
        lane.store.gates[queue] = SharedGate(closed, before.running)

    # --- what lanes report to each other ---

    def reports(self) -> Mapping[type, ReportHandler]:
        return {
            wire.QueueLimitTold: self._on_told,
            wire.QueueLimitJoined: self._on_joined,
            wire.QueueLimitUsed: self._on_used,
            wire.QueueLimitGiven: self._on_given,
        }

    def _on_told(self, report: wire.QueueLimitTold, cause: str, election: Election, out: LaneOutput) -> None:
        lane, queue, capacity = self.pipeline, report.queue, report.capacity or 0
        if owner_lane(lane, queue) == lane.number:
            self._is_stale(report, out)
            return
        before = lane.store.gates.get(queue)
        known = before.limit.definition if before is not None else None
        if report.changed or known != ((report.kind, capacity, report.interval_ms) if capacity else None):
            write_changed(changed(report), cause, out)
        running = take_in(lane, queue, report.kind, capacity, report.interval_ms, report.number, out)
        if report.number:
            said = wire.QueueLimitJoined(queue=queue, number=report.number, lane=lane.number, running=running)
            out.reports.append((owner_lane(lane, queue), queue, said))

    def _on_joined(self, report: wire.QueueLimitJoined, _cause: str, election: Election, out: LaneOutput) -> None:
        lane, queue = self.pipeline, report.queue
        if report.lane == lane.number or owner_lane(lane, queue) != lane.number:
            self._is_stale(report, out)
        elif not report.number:
            self._join_anew(queue, report.lane, election, out)
        elif (owner := lane.store.owners.get(queue)) is None or not owner.joined(
            report.lane, report.number, report.running
        ):
            self._is_stale(report, out)
        else:
            forget_if_over(owner, queue, lane, out)
            settle(owner, queue, election.now_ms, lane, out)

    def _join_anew(self, queue: str, asking: int | None, election: Election, out: LaneOutput) -> None:
        """Let all lanes join again, since `asking` has lost what it knew, or a lane is new."""
        lane, gate = self.pipeline, self.pipeline.store.gates.get(queue)
        owner = lane.store.owners.get(queue)
        if owner is None and gate is None:
            if asking is not None:
                none = wire.QueueLimitTold(queue=queue, number=0, kind=LimitKind.MUTEX)
                out.reports.append((asking, queue, none))
            return
        if owner is None:
            assert gate is not None
            if isinstance(gate, Gate):
                owner = own(lane, queue, gate.record())
            else:  # its record was lost
                owner = own(lane, queue, spent(QueueLimit(*gate.limit.definition), election.now_ms))
        owner.begin(*owner.setting, range(lane.lanes), election.now_ms)
        share(owner, None, queue, lane, out)

    def _on_used(self, report: wire.QueueLimitUsed, _cause: str, election: Election, out: LaneOutput) -> None:
        owner = self.pipeline.store.owners.get(report.queue)
        said = Said(report.returned, report.used, report.at_ms, report.unused, report.more)
        if owner is None or report.lane == owner.own or not owner.said(report.lane, report.number, said):
            self._is_stale(report, out)
        else:
            settle(owner, report.queue, election.now_ms, self.pipeline, out)

    def _on_given(self, report: wire.QueueLimitGiven, _cause: str, election: Election, out: LaneOutput) -> None:
        gate = self.pipeline.store.gates.get(report.queue)
        is_own = owner_lane(self.pipeline, report.queue) == self.pipeline.number
        if is_own or not isinstance(gate, SharedGate) or not 0 < gate.share.number == report.number:
            self._is_stale(report, out)
        else:
            gate.give(report.times, report.others_wait)

    def _is_stale(self, report: wire.Report, out: LaneOutput) -> None:
        out.counts["joblog_stale_reports_total", str(type(report).__struct_config__.tag)] += 1

    # --- time, and the end of a turn ---

    def wakes_ms(self) -> int | None:
        store = self.pipeline.store
        waiting = (*store.gates.values(), *store.owners.values())
        return min((one.wake_ms for one in waiting if one.wake_ms is not None), default=None)

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Join what has to be joined, and let a turn follow when the time of a rate has come."""
        lane = self.pipeline
        for queue in self._to_join:
            if owner_lane(lane, queue) == lane.number:
                self._join_anew(queue, None, election, out)
            else:
                said = wire.QueueLimitJoined(queue=queue, number=0, lane=lane.number)
                out.reports.append((owner_lane(lane, queue), queue, said))
        self._to_join.clear()
        for queue, owner in lane.store.owners.items():
            if owner.wake_ms is not None and owner.wake_ms <= election.now_ms:
                settle(owner, queue, election.now_ms, lane, out)
                lane.store.has_released = True
        for gate in lane.store.gates.values():
            if gate.wake_ms is not None and gate.wake_ms <= election.now_ms:
                gate.wake_ms = None
                lane.store.has_released = True

    def turn_ended(self, out: LaneOutput) -> None:
        store = self.pipeline.store
        for queue, gate in store.gates.items():
            if isinstance(gate, SharedGate) and gate.share.number:
                said = gate.said(out.budget.is_spent)
                if said is not None:
                    self._tell_owner(queue, gate, said, out)
        for queue, gate in store.gates.items():
            if gate.is_changed and (isinstance(gate, Gate) or gate.share.number):
                out.state[QUEUE_LIMIT_KEY + queue] = gate.record()
        for queue, owner in store.owners.items():
            if owner.is_changed:
                out.state[QUEUE_LIMIT_KEY + queue + OWNER_KEY] = owner.kept()

    def _tell_owner(self, queue: str, gate: SharedGate, said: Said, out: LaneOutput) -> None:
        lane, number = self.pipeline, gate.share.number
        owner = lane.store.owners.get(queue)
        if owner is None:
            told = wire.QueueLimitUsed(
                queue=queue, number=number, lane=lane.number, returned=said.returned, used=said.used,
                at_ms=said.at_ms, unused=said.unused, more=said.more,
            )  # fmt: skip
            out.reports.append((owner_lane(lane, queue), queue, told))
        else:
            owner.said(lane.number, number, said)
            settle(owner, queue, lane.store.assigned_ms, lane, out)
