"""The batches whose records a lane keeps: when each starts, how it stands, when it has ended, and who waits for that.

What is heard of a batch only changes its numbers. Which state they give is looked at as time passes, ten times a
second: an end counts when everything in the lane's topics is read, so that jobs which a last job has attached before
its own end are known. The records of ended batches are kept for a while, since jobs may be attached or requeued.
"""

from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.states import AWAITING, FAILED, PROCESSING, State
from joblog.streams.lane.features.batch_parts import BatchParts
from joblog.streams.lane.features.batch_records import (
    BATCH_KEY,
    NOTHING,
    Batch,
    added,
    is_open,
    state_of,
)
from joblog.streams.lane.features.batch_waits import BatchWaits
from joblog.streams.lane.features.batch_words import (
    EVENTS,
    numbers,
    tell,
    tell_started,
    unfit,
    unknown,
    why,
    write_event,
    write_unknown,
)
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Rejection

#: How often an event tells the progress of a batch, milliseconds.
PROGRESS_MS: Final = 1_000
#: How long an end is put off while the lane is behind, milliseconds.
BEHIND_MS: Final = 10_000


class BatchOwner:
    """The batches of one lane."""

    def __init__(self, pipeline: Pipeline, parts: BatchParts) -> None:
        self.pipeline = pipeline
        self.parts = parts
        self.batches: dict[str, Batch] = {}
        self.waits = BatchWaits()
        #: Those to be looked at, and what last changed them, as the cause of an event.
        self._touched: dict[str, str | None] = {}
        #: Ended batches, oldest first, with the time of their end: those with Failed jobs, and the others.
        self._failed: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    # --- loading ---

    def load(self, batch_id: str, batch: Batch) -> None:
        self.batches[batch_id] = batch

    def loaded(self) -> None:
        """Look at all that have not ended, and let those wait that wait for the start of their outer batch."""
        for batch_id, batch in sorted(self.batches.items(), key=lambda item: item[1].state_ms):
            self._touched[batch_id] = None
            if not is_open(batch):
                self._ends_of(batch.state)[batch_id] = batch.state_ms
            if batch.waits and batch.outer is not None and batch.parent == batch.outer:
                self.parts.waits(batch.outer, batch_id)

    # --- commands ---

    def create(self, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
        """Create a batch; of its jobs, and of what waits for it, one may have heard before."""
        command = received.command
        assert isinstance(command, wire.CreateBatch)
        batch_id, parent, outer = command.batch_id, command.parent, command.batch
        others = (*([parent.job_id] if parent is not None else ()), *([outer] if outer is not None else ()))
        if rejected := unfit(self.pipeline.lanes, batch_id, others, command.lanes):
            return rejected
        batch = self._known_or_new(batch_id, election)
        if batch.is_created:
            return Rejection("duplicate", f"batch {batch_id} exists already")
        batch.is_created, batch.at_ms, batch.description, batch.outer = (
            True, election.now_ms, command.description, outer,
        )  # fmt: skip
        added(batch, batch_id, command.lanes, command.jobs)
        if parent is not None:
            batch.waits, batch.parent, batch.on, batch.state = True, parent.job_id, parent.on, AWAITING
        self._touch(batch_id, batch, received.id, election, out)
        self._event(batch_id, batch, "batch.created", None, election, out)
        if outer is not None:
            self.parts.moved(outer, None, batch.state, out)
        if parent is None:
            tell_started(batch_id, batch, out)
        elif parent.kind is ParentKind.BATCH and parent.job_id == outer:
            self.parts.created_waiting(outer, batch_id)
        else:
            kind = wire.BatchAwaited if parent.kind is ParentKind.BATCH else wire.ContinuationAdded
            link = kind(job_id=parent.job_id, child=batch_id, on=parent.on)
            out.reports.append((lane_of_job(parent.job_id), parent.job_id, link))
        if outer is not None and outer in self.parts.cancelled:
            self._cancel(batch_id, batch, self.parts.cancelled[outer], False, election, out)
        return None

    def attach(self, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
        """Expect more jobs in a batch."""
        command = received.command
        assert isinstance(command, wire.AttachToBatch)
        if rejected := unfit(self.pipeline.lanes, command.batch_id, (), command.lanes):
            return rejected
        batch = self.batches.get(command.batch_id)
        if batch is None or not batch.is_created:
            return unknown(command.batch_id)
        if not added(batch, command.addition, command.lanes, command.jobs):
            return Rejection("duplicate", f"this addition to batch {command.batch_id} was made before")
        self._touch(command.batch_id, batch, received.id, election, out)
        self._event(command.batch_id, batch, "batch.progressed", None, election, out)
        return None

    def cancel(self, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
        """Cancel a batch: one report to each lane in which jobs of it are."""
        command = received.command
        assert isinstance(command, wire.CancelBatch)
        batch = self.batches.get(command.batch_id)
        if batch is None or not batch.is_created:
            return unknown(command.batch_id)
        if batch.cancelled is not None and (batch.running or not command.running):
            return Rejection("duplicate", f"batch {command.batch_id} is cancelled already")
        reason = command.reason or f"Batch {command.batch_id} was cancelled"
        self._touch(command.batch_id, batch, received.id, election, out)
        self._cancel(command.batch_id, batch, reason, command.running, election, out)
        return None

    # --- reports ---

    def counted(self, report: wire.BatchCounted, cause: str, election: Election, out: LaneOutput) -> None:
        """Take what a lane has counted."""
        batch_id, lane = report.job_id, report.lane
        if batch_id not in self.batches and report.number > 1:
            out.counts["joblog_stale_reports_total", "batch.counted"] += 1
            tell(batch_id, [lane], "forgotten", f"Batch {batch_id} is no longer kept", out)
            return
        batch = self._known_or_new(batch_id, election)
        if batch.parts.get(lane, NOTHING)[5] >= report.number:
            out.counts["joblog_stale_reports_total", "batch.counted"] += 1
            return
        if lane not in batch.parts and batch.cancelled is not None:
            tell(batch_id, [lane], "cancelled", batch.cancelled, out, running=batch.running)
        counts = report.created, report.succeeded, report.failed, report.deleted, report.marks, report.number
        batch.parts = {**batch.parts, lane: counts}
        if report.asks and batch.cancelled is None:
            batch.asking = tuple(dict.fromkeys((*batch.asking, lane)))
            if batch.is_created and not batch.waits:
                tell_started(batch_id, batch, out)
        self._touch(batch_id, batch, cause, election, out)

    def awaited(self, link: wire.BatchAwaited, cause: str, election: Election, out: LaneOutput) -> None:
        """Let a job or another batch wait for the end of this one; it hears of it when this one is looked at."""
        batch = self._known_or_new(link.job_id, election)
        if self.waits.add(link.job_id, link.child, link.on, out):
            if not batch.is_created:  # each of those that wait does so for a while, until it is given up
                batch.at_ms = election.now_ms
            self._touch(link.job_id, batch, cause, election, out)

    def parent_ended(self, report: wire.ParentEnded, cause: str, election: Election, out: LaneOutput) -> bool:
        """Start the batch that waited for a parent, or cancel it; False if it is no batch that waited."""
        batch = self.batches.get(report.job_id)
        if batch is None:
            return False
        if not batch.waits or batch.parent != report.parent:
            out.counts["joblog_stale_reports_total", "parent.ended"] += 1
            return True
        self._touch(report.job_id, batch, cause, election, out)
        if report.run:
            self._start(report.job_id, batch, report.reason, election, out)
        else:
            self._cancel(report.job_id, batch, report.reason, False, election, out)
        return True

    def cancel_inner(self, report: wire.BatchTold, election: Election, out: LaneOutput) -> None:
        """Cancel the batches within a cancelled one whose records are here."""
        for batch_id, batch in self.batches.items():
            if batch.outer == report.job_id and (batch.cancelled is None or (report.running and not batch.running)):
                self._touch(batch_id, batch, None, election, out)
                self._cancel(batch_id, batch, report.reason, report.running, election, out)

    # --- time ---

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """See how the batches stand of which something was heard, and forget the oldest that have ended."""
        for inner in self.parts.started:
            batch = self.batches.get(inner)
            if batch is not None and batch.waits:
                self._touch(inner, batch, None, election, out)
                self._start(inner, batch, f"Batch {batch.outer} has started", election, out)
        self.parts.started.clear()
        for inner, reason in self.parts.unstarted:
            batch = self.batches.get(inner)
            if batch is not None and batch.waits:
                self._touch(inner, batch, None, election, out)
                self._cancel(inner, batch, reason, False, election, out)
        self.parts.unstarted.clear()
        for batch_id in tuple(self._touched):
            if out.budget.is_spent:
                return
            self._look(batch_id, self.batches[batch_id], caught_up, election, out)
        rules = self.pipeline.rules
        self._forget_old(self._ended, rules.batches_ms, election, out)
        self._forget_old(self._failed, max(rules.batches_ms, rules.failed_ms), election, out)

    def _look(self, batch_id: str, batch: Batch, caught_up: bool, election: Election, out: LaneOutput) -> None:
        pending_ms = self.pipeline.rules.pending_ms
        if not batch.is_created:
            if caught_up and election.now_ms - batch.at_ms > pending_ms:
                self._give_up(batch_id, batch, election, out)
            return
        silent_ms = election.now_ms - batch.changed_ms
        is_overdue = caught_up and silent_ms > pending_ms
        created, *ends = batch.counts
        is_pending = created > sum(ends)
        if is_overdue and not batch.is_complete and not is_pending and not batch.waits:
            batch.gave_up = True
            out.state[BATCH_KEY + batch_id] = batch
        state = state_of(batch)
        is_end = state is not AWAITING and state is not PROCESSING
        if is_end and not caught_up and silent_ms < BEHIND_MS:
            return
        if state is not batch.state:
            self._enter(batch_id, batch, state, why(batch, state), election, out)
        elif batch.shown != numbers(batch):
            if election.now_ms - batch.event_ms < PROGRESS_MS:
                return
            self._event(batch_id, batch, "batch.progressed", None, election, out)
        if is_end and not self.waits.release(batch_id, state, out):
            return  # it is looked at again in the next turn
        if batch.is_complete or batch.waits or is_pending:
            del self._touched[batch_id]

    def _enter(
        self, batch_id: str, batch: Batch, state: State, reason: str | None, election: Election, out: LaneOutput
    ) -> None:
        before = batch.state
        batch.state, batch.state_ms = state, election.now_ms
        self._ends_of(before).pop(batch_id, None)
        if not is_open(batch):
            self._ends_of(state)[batch_id] = election.now_ms
        self._event(batch_id, batch, EVENTS[state], reason, election, out)
        if batch.outer is not None:
            self.parts.moved(batch.outer, before, state, out)

    def _start(self, batch_id: str, batch: Batch, reason: str, election: Election, out: LaneOutput) -> None:
        batch.waits = False
        self._enter(batch_id, batch, PROCESSING, reason, election, out)
        tell_started(batch_id, batch, out)

    def _cancel(
        self, batch_id: str, batch: Batch, reason: str, running: bool, election: Election, out: LaneOutput
    ) -> None:
        batch.cancelled, batch.running, batch.waits, batch.asking = reason, batch.running or running, False, ()
        if batch.state is AWAITING:
            batch.state = PROCESSING
        self._event(batch_id, batch, "batch.cancelled", reason, election, out)
        tell(batch_id, batch.parts, "cancelled", reason, out, running=batch.running)

    # --- the end of a record ---

    def _forget_old(self, ended: dict[str, int], keep_ms: int, election: Election, out: LaneOutput) -> None:
        while ended and not out.budget.is_spent:
            batch_id, ended_ms = next(iter(ended.items()))
            if len(ended) <= self.pipeline.rules.batches_kept and election.now_ms - ended_ms <= keep_ms:
                return
            batch = self.batches[batch_id]
            text = f"Batch {batch_id} ended as {batch.state}, and is no longer kept"
            if not self.waits.refuse(batch_id, batch.state, text, out):
                return
            del ended[batch_id]
            self._drop(batch_id, batch, text, out)

    def _give_up(self, batch_id: str, batch: Batch, election: Election, out: LaneOutput) -> None:
        text = f"Batch {batch_id} is unknown: it was never created, or ended too long ago"
        if not self.waits.refuse(batch_id, None, text, out):
            return
        if batch.parts:
            write_unknown(batch_id, text, election.now_ms, out)
        self._drop(batch_id, batch, text, out)

    def _drop(self, batch_id: str, batch: Batch, reason: str, out: LaneOutput) -> None:
        del self.batches[batch_id]
        self._touched.pop(batch_id, None)
        out.state[BATCH_KEY + batch_id] = None
        tell(batch_id, batch.parts, "forgotten", reason, out)
        out.budget.spend(2 + len(batch.parts), 0)

    # --- records ---

    def _touch(self, batch_id: str, batch: Batch, cause: str | None, election: Election, out: LaneOutput) -> None:
        """Note that the batch has changed."""
        batch.changed_ms = election.now_ms
        self._touched[batch_id] = cause
        out.state[BATCH_KEY + batch_id] = batch

    def _known_or_new(self, batch_id: str, election: Election) -> Batch:
        batch = self.batches.get(batch_id)
        if batch is None:
            batch = self.batches[batch_id] = Batch(election.now_ms)
        return batch

    def _ends_of(self, state: State) -> dict[str, int]:
        return self._failed if state is FAILED else self._ended

    def _event(
        self, batch_id: str, batch: Batch, kind: str, reason: str | None, election: Election, out: LaneOutput
    ) -> None:
        write_event(batch_id, batch, kind, reason, self._touched.get(batch_id), election.now_ms, out)
