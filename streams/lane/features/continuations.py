"""Continuations: jobs that wait for another job to end, in any lane, and for parents that are not created yet.

The lane of a continuation reports to the lane of its parent that it waits. That lane keeps the wait in the parent's
record, or in a record of this feature until it has read the parent's create command, and reports the outcome back,
with the parent's result or exception. It follows only the jobs that others wait for.

A job with several parents notes how each of them ended, and decides when that is enough (lane/parents.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import AWAITING, ContinueOn, State
from joblog.streams.lane.extras import AFTER_BATCH
from joblog.streams.lane.feature import Feature, ReportHandler
from joblog.streams.lane.features import parent_reports
from joblog.streams.lane.features.recent_ends import RecentEnds
from joblog.streams.lane.job import Job, waits_for_start
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.parents import carried, several
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election
from joblog.streams.lane.verdicts import CONTINUATIONS_MAX, reason, verdict
from msgspec import msgpack, structs

PENDING_KEY: Final = "pending:"

#: The jobs that wait for one parent: child, what it waits for, and since when (unix milliseconds).
Links = tuple[tuple[str, str, int], ...]


class Continuations(Feature):
    """Which jobs wait for which parent; its records are the waits for parents that are not created yet."""

    prefix: ClassVar = PENDING_KEY
    decoder: ClassVar = msgpack.Decoder(Links)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.pending: dict[str, Links] = {}
        self._recent = RecentEnds()
        #: So many of this turn's events are among the recent ends already.
        self._taken = 0

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        self.pending[key] = value

    def loaded(self, clock_ms: int) -> None:
        for parent in self.pending:
            self.pipeline.follow(parent, self)
        for job in self.pipeline.store.jobs.values():
            if job.continuations:
                self.pipeline.follow(job.id, self)

    def reports(self) -> Mapping[type, ReportHandler]:
        return {wire.ContinuationAdded: self._added, wire.ParentEnded: self._parent_ended}

    def created(self) -> Mapping[State, Callable[[Job, LaneOutput], None]]:
        return {AWAITING: self._report_wait}

    def _report_wait(self, job: Job, out: LaneOutput) -> None:
        """Report to the lanes of its parents that this job waits; not if that is the start of its own batch."""
        if job.parent is not None and job.on is not None and not waits_for_start(job):
            is_after_batch = job.extras is not None and job.extras.uses & AFTER_BATCH
            kind = wire.BatchAwaited if is_after_batch else wire.ContinuationAdded
            link = kind(job_id=job.parent, child=job.id, on=job.on)
            out.reports.append((lane_of_job(job.parent), job.parent, link))
        elif (parents := several(job)) is not None:
            for parent in dict.fromkeys(parents.job_ids):
                added = wire.ContinuationAdded(job_id=parent, child=job.id, on=parents.on)
                out.reports.append((lane_of_job(parent), parent, added))

    def _parent_ended(self, report: wire.ParentEnded, cause: str, election: Election, out: LaneOutput) -> None:
        parent_reports.take(self.pipeline, report, cause, election, out)

    def appeared(self, job: Job, out: LaneOutput) -> None:
        """Hand the waits that were reported before their parent was created over to the parent's record."""
        links = self.pending.pop(job.id, None)
        if links is not None:
            job.continuations = tuple(dict.fromkeys((child, ContinueOn(on)) for child, on, _ in links))
            out.state[PENDING_KEY + job.id] = None

    def ended(self, job: Job, out: LaneOutput) -> None:
        """Report the end to those whose condition is decided; the others wait, for a Failed job may be requeued."""
        waiting, event = [], _last_event(job, out)
        for child, on in job.continuations:
            if verdict(on, job.state) == "wait":
                waiting.append((child, on))
            else:
                self._report_end(job.id, job.state, child, on, event, out)
        job.continuations = tuple(waiting)

    def forgotten(self, job: Job, out: LaneOutput) -> None:
        """Report the end to those that still wait: a Failed job that is no longer kept will not be requeued here."""
        for child, on in job.continuations:
            self._report_end(job.id, job.state, child, on, self._at_hand(job.id, job.version, out), out)

    def turn_ended(self, out: LaneOutput) -> None:
        self._take(out)
        self._taken = 0

    def _take(self, out: LaneOutput) -> None:
        self._recent.take(out.events[self._taken :] if self._taken else out.events)
        self._taken = len(out.events)

    def _at_hand(self, job_id: str, version: int, out: LaneOutput) -> wire.JobEvent | None:
        """The event with which a job ended, in this turn or a while ago."""
        self._take(out)
        return self._recent.get(job_id, version)

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Give up on parents that were not created in time."""
        if caught_up and self.pending:
            for parent, links in list(self.pending.items()):
                if election.now_ms - links[-1][2] > self.pipeline.rules.pending_ms:
                    self._give_up(parent, out)

    def _added(self, link: wire.ContinuationAdded, _cause: str, election: Election, out: LaneOutput) -> None:
        parent = self.pipeline.store.jobs.get(link.job_id)
        if parent is not None:
            self._wait_or_report(parent, link.child, link.on, out)
            return
        remembered = self.pipeline.ended.get(link.job_id)
        if remembered is not None:
            event = self._at_hand(link.job_id, remembered[1], out)
            self._report_end(link.job_id, remembered[0], link.child, link.on, event, out)
            return
        # The parent's create command may not have been read yet: it is in another partition.
        waiting = self.pending.get(link.job_id, ())
        if len(waiting) >= CONTINUATIONS_MAX:
            self._refuse(link.job_id, link.child, out)
            return
        self.pipeline.follow(link.job_id, self)
        self.pending[link.job_id] = (*waiting, (link.child, link.on.value, election.now_ms))
        out.state[PENDING_KEY + link.job_id] = self.pending[link.job_id]

    def _wait_or_report(self, parent: Job, child: str, on: ContinueOn, out: LaneOutput) -> None:
        if verdict(on, parent.state) != "wait":
            event = self._at_hand(parent.id, parent.version, out)
            self._report_end(parent.id, parent.state, child, on, event, out)
        elif (child, on) in parent.continuations:
            pass  # reported twice
        elif len(parent.continuations) >= CONTINUATIONS_MAX:
            self._refuse(parent.id, child, out)
        else:
            self.pipeline.follow(parent.id, self)
            waiting = structs.replace(parent, continuations=(*parent.continuations, (child, on)))
            self.pipeline.store.jobs[parent.id] = out.state[parent.id] = waiting

    def _give_up(self, parent: str, out: LaneOutput) -> None:
        self.pipeline.unfollow(parent, self)
        for child, _, _ in self.pending.pop(parent):
            why = f"Job {parent} is unknown: it was never created, or ended too long ago"
            self._refuse(parent, child, out, why)
        out.state[PENDING_KEY + parent] = None

    def _report_end(
        self, parent: str, state: State, child: str, on: ContinueOn, event: wire.JobEvent | None, out: LaneOutput
    ) -> None:
        outcome, has = verdict(on, state), carried(event, state)
        report = wire.ParentEnded(
            job_id=child,
            parent=parent,
            state=state,
            run=outcome == "run",
            reason=reason(parent, state, outcome),
            result=has.result,
            exception=has.exception,
            omitted=has.omitted,
        )
        out.reports.append((lane_of_job(child), child, report))

    def _refuse(self, parent: str, child: str, out: LaneOutput, why: str | None = None) -> None:
        """Have a continuation deleted, since it cannot wait for its parent."""
        text = why or f"Job {parent} has {CONTINUATIONS_MAX} continuations already"
        report = wire.ParentEnded(job_id=child, parent=parent, state=None, run=False, reason=text)
        out.reports.append((lane_of_job(child), child, report))


def _last_event(job: Job, out: LaneOutput) -> wire.JobEvent:
    """The event that led to where the job is, which this turn wrote."""
    written = (data for key, _, _, data, _, _ in reversed(out.events) if key == job.id)
    return next(data for data in written if isinstance(data, wire.JobEvent) and data.version == job.version)
