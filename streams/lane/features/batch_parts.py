"""The batches of which a lane has jobs: what these have come to is counted, and reported once a turn.

Reports tell of all that ever was in this lane, so that one which comes late, or comes again, does no harm. A lane is
told by the batch's own lane when the batch starts, is cancelled or is forgotten. Its jobs may be many, so what that
leads to is done over several turns; whoever takes the lane over begins with that anew, from the jobs that are left.
"""

from collections import deque
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import ENQUEUED, FAILED, FINAL_STATES, PROCESSING, State
from joblog.streams.lane.features.batch_records import BATCH_KEY, PART, Part, counted, marked
from joblog.streams.lane.job import Job, waits_for_start
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election

#: So many jobs are looked at in a turn, and so many of them moved; there are ten turns a second.
LOOKED_AT_MAX: Final = 50_000
MOVED_MAX: Final = 2_000


class BatchParts:
    """The parts of batches in one lane.

    - started: inner batches that waited for the start of an outer one, and may start now; unstarted: those that
      cannot, and why.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.parts: dict[str, Part] = {}
        self.cancelled: dict[str, str] = {}
        self.started: list[str] = []
        self.unstarted: list[tuple[str, str]] = []
        #: Jobs and inner batches that wait for their batch to start.
        self.waiting: dict[str, list[str]] = {}
        self._changed: set[str] = set()
        self._asking: set[str] = set()
        #: What is to be started, or looked at since its batch is cancelled or unknown, with the reason to delete it.
        self._to_start: deque[tuple[str, list[str]]] = deque()
        self._to_delete: deque[tuple[list[str], dict[str, str]]] = deque()
        #: All jobs of the lane, as far as they are still to be looked at, and whether to begin anew after that.
        self._all: list[str] = []
        self._again = False

    # --- loading ---

    def load(self, batch: str, part: Part) -> None:
        self.parts[batch] = part
        if part.cancelled is not None:
            self.cancelled[batch] = part.cancelled

    def loaded(self) -> None:
        """Go on with what another elector had begun."""
        for batch in list(self.waiting):
            self._asking.add(batch)
            part = self.parts.get(batch)
            if part is not None and part.is_started:
                self._start(batch)
        if self.cancelled:
            self._look_at_all()

    def waits(self, batch: str, member: str) -> None:
        """Note that a job, or an inner batch, waits for its batch to start."""
        self.waiting.setdefault(batch, []).append(member)

    # --- counting ---

    def moved(self, batch: str, before: State | None, after: State, out: LaneOutput) -> None:
        """Count a member of a batch that came to be (`before` is None) or moved; none of a forgotten batch."""
        part = self.parts.get(batch)
        if part is None:
            if before is not None:
                return
            part = self.parts[batch] = Part()
        if counted(part, before, after):
            self._changed.add(batch)

    def job_created(self, batch: str, job: Job) -> None:
        """Let a new job wait or be deleted, as its batch does."""
        if batch in self.cancelled:
            self.job_moved(batch, job)
        elif waits_for_start(job):
            self.created_waiting(batch, job.id)

    def job_moved(self, batch: str, job: Job) -> None:
        """Let a job that comes to wait, for a retry, say, be deleted if its batch is cancelled."""
        if batch in self.cancelled and job.state not in FINAL_STATES and job.state is not PROCESSING:
            self._look_at([job.id], self.cancelled)

    def created_waiting(self, batch: str, member: str) -> None:
        """Let a new member wait for the start of its batch, unless that is known to have started."""
        self.waits(batch, member)
        if self.parts[batch].is_started:
            self._start(batch)

    def mark(self, batch: str, mark: str) -> bool:
        """Note that an addition is complete in this lane; False if that is known."""
        part = self.parts.setdefault(batch, Part())
        if not marked(part, mark):
            return False
        self._changed.add(batch)
        return True

    def tick(self, election: Election, out: LaneOutput) -> None:
        """Start and delete what is due, and ask for batches of which nothing was told."""
        self._start_some(election, out)
        self._delete_some(election, out)
        while self._asking:
            batch = self._asking.pop()
            if batch in self.waiting:
                self.parts.setdefault(batch, Part())
                self._report(batch, out)

    def turn_ended(self, out: LaneOutput) -> None:
        """Report what has changed."""
        for batch in self._changed:
            if batch in self.parts:
                self._report(batch, out)
        self._changed.clear()

    def _report(self, batch: str, out: LaneOutput) -> None:
        part = self.parts[batch]
        created, succeeded, failed, deleted, marks, number = part.counts
        part.counts = (created, succeeded, failed, deleted, marks, number + 1)
        out.state[f"{BATCH_KEY}{batch}{PART}"] = part
        report = wire.BatchCounted(
            job_id=batch,
            lane=self.pipeline.number,
            number=number + 1,
            created=created,
            succeeded=succeeded,
            failed=failed,
            deleted=deleted,
            marks=marks,
            asks=batch in self.waiting and not part.is_started,
        )
        out.reports.append((lane_of_job(batch), batch, report))

    # --- what the batch's lane tells ---

    def told(self, report: wire.BatchTold, out: LaneOutput) -> bool:
        """Take what is told of a batch; False if that is known, or the batch forgotten."""
        batch = report.job_id
        part = self.parts.get(batch)
        if part is None:
            return False
        if report.what == "forgotten":
            self._forget(batch, report.reason, out)
            return True
        if report.what == "started":
            if part.is_started:
                return False
            part.is_started = True
            self._start(batch)
        else:
            if part.cancelled is not None and (part.running or not report.running):
                return False
            part.cancelled, part.running = report.reason, part.running or report.running
            self.waiting.pop(batch, None)
            self.cancelled[batch] = report.reason
            self._look_at_all()
        out.state[f"{BATCH_KEY}{batch}{PART}"] = part
        return True

    def _forget(self, batch: str, reason: str, out: LaneOutput) -> None:
        del self.parts[batch]
        self.cancelled.pop(batch, None)
        out.state[f"{BATCH_KEY}{batch}{PART}"] = None
        left = self.waiting.pop(batch, [])
        self.unstarted += [(one, reason) for one in left if one not in self.pipeline.store.jobs]
        self._look_at(left, {batch: reason})

    def _start(self, batch: str) -> None:
        ids = self.waiting.pop(batch, [])
        if ids:
            ids.reverse()
            self._to_start.append((batch, ids))

    def _start_some(self, election: Election, out: LaneOutput) -> None:
        jobs, moved = self.pipeline.store.jobs, 0
        while self._to_start and moved < MOVED_MAX and not out.budget.is_spent:
            batch, ids = self._to_start[0]
            member = ids.pop()
            if not ids:
                self._to_start.popleft()
            moved += 1
            job = jobs.get(member)
            if job is None:
                self.started.append(member)
            elif waits_for_start(job):
                why = f"Batch {batch} has started"
                report = wire.ParentEnded(job_id=member, parent=batch, state=PROCESSING, run=True, reason=why)
                self.pipeline.apply(job, report, f"started/{batch}", election, out)

    # --- deleting ---

    def _look_at_all(self) -> None:
        """Look for jobs of cancelled batches; one list of all jobs at a time, for there may be millions."""
        if self._all:
            self._again = True
        else:
            self._all = list(self.pipeline.store.jobs)
            self._look_at(self._all, self.cancelled)

    def _look_at(self, ids: list[str], reasons: dict[str, str]) -> None:
        """Have those of these jobs deleted whose batch is among these."""
        if ids:
            self._to_delete.append((ids, reasons))

    def _delete_some(self, election: Election, out: LaneOutput) -> None:
        jobs, looked_at, moved = self.pipeline.store.jobs, 0, 0
        while self._to_delete and looked_at < LOOKED_AT_MAX and moved < MOVED_MAX and not out.budget.is_spent:
            ids, reasons = self._to_delete[0]
            job = jobs.get(ids.pop())
            if not ids:
                self._to_delete.popleft()
                if ids is self._all and self._again:
                    self._again = False
                    self._look_at_all()
            looked_at += 1
            batch = None if job is None or job.extras is None else job.extras.batch
            if job is not None and batch is not None and batch in reasons and self._is_to_go(job, batch):
                self.delete(job, reasons[batch], election, out)
                moved += 1

    def _is_to_go(self, job: Job, batch: str) -> bool:
        if job.state is PROCESSING:
            part = self.parts.get(batch)
            return part is not None and part.running
        return job.state is not FAILED

    def delete(self, job: Job, reason: str, election: Election, out: LaneOutput) -> None:
        """Delete a job of a cancelled batch."""
        assert job.extras is not None
        command = wire.DeleteJob(job_id=job.id, reason=reason)
        self.pipeline.apply(job, command, f"cancelled/{job.extras.batch}", election, out)

    def may_start(self, job: Job, election: Election, out: LaneOutput) -> str | None:
        """Delete a job that is about to start, if its batch is cancelled."""
        assert job.extras is not None
        reason = self.cancelled.get(job.extras.batch or "")
        if reason is None:
            return None
        self.delete(job, reason, election, out)
        current = self.pipeline.store.jobs.get(job.id)
        return reason if current is None or current.state is not ENQUEUED else None
