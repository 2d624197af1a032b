"""Continuations: jobs that wait for another job to end, in any lane, and for parents that are not created yet.

The lane of a continuation reports to the lane of its parent that it waits. That lane keeps the wait in the parent's
record, or in a record of this feature until it has read the parent's create command, and reports the outcome back,
with the parent's result or exception. It follows only the jobs that others wait for. Beyond the first thousand, waits
have records of their own (more_continuations.py). A parent that ended so long ago that its lane has forgotten it is
asked for (sought_parents.py).

A job with several parents notes how each of them ended, and decides when that is enough (lane/parents.py).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import AWAITING, FINAL_STATES, ContinueOn, State
from joblog.streams.lane.extras import AFTER_BATCH
from joblog.streams.lane.feature import Feature, ReportHandler
from joblog.streams.lane.features import parent_reports
from joblog.streams.lane.features.more_continuations import PENDING_KEY, ManyTold, MoreContinuations, MoreWait
from joblog.streams.lane.features.recent_ends import RecentEnds
from joblog.streams.lane.features.sought_parents import ASK_AFTER_MS, Link, Links, SoughtParents, question_of, unknown
from joblog.streams.lane.job import Job, waits_for_start
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.parents import carried, several, size_of
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election
from joblog.streams.lane.verdicts import LISTED_MAX, reason, verdict
from msgspec import msgpack, structs

#: Jobs that are told of an end in the turn in which it comes; the others in the next ones.
AT_ONCE_MAX: Final = 500


class Continuations(Feature):
    """Which jobs wait for which parent; its records are the waits for parents of which the lane knows nothing."""

    prefix: ClassVar = PENDING_KEY
    decoder: ClassVar = msgpack.Decoder(tuple[Link, ...] | MoreWait | ManyTold)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.pending: dict[str, Links] = {}
        self.more = MoreContinuations(pipeline.store.jobs, self._report_outcome)
        self._sought = SoughtParents()
        self._has_lost_reports = False
        #: Jobs whose wait has to be reported again.
        self._again: list[str] = []
        self._recent = RecentEnds()
        #: So many of this turn's events are among the recent ends already.
        self._taken = 0

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        if isinstance(value, MoreWait | ManyTold):
            self.more.load(key, value)
        else:
            self.pending[key] = value

    def reports_lost(self) -> None:
        self._has_lost_reports = True

    def loaded(self, clock_ms: int) -> None:
        if self._has_lost_reports:  # the ends of parents may be among them
            self._again = [job.id for job in self.pipeline.store.jobs.values() if job.state is AWAITING]
        for parent in (*self.pending, *self.more.parents):
            self.pipeline.follow(parent, self)
        for parent in self.pending:
            self._sought.begin(parent, 0)
        for job in self.pipeline.store.jobs.values():
            if job.continuations:
                self.pipeline.follow(job.id, self)

    def reports(self) -> Mapping[type, ReportHandler]:
        return {
            wire.ContinuationAdded: self._added,
            wire.ParentEnded: self._parent_ended,
            wire.ParentFound: self._found,
        }

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
        if job.id in self.pending:
            job.continuations = self._taken_out(job.id, out)

    def ended(self, job: Job, out: LaneOutput) -> None:
        """Report the end to those whose condition is decided; the others wait, for a Failed job may be requeued."""
        waiting = tuple(one for one in job.continuations if verdict(one[1], job.state) == "wait")
        decided = [one for one in job.continuations if verdict(one[1], job.state) != "wait"]
        job.continuations = waiting
        self._tell(job.id, decided, carried(_last_event(job, out), job.state), out)

    def forgotten(self, job: Job, out: LaneOutput) -> None:
        """Report the end to those that still wait: a Failed job that is no longer kept will not be requeued here."""
        if job.continuations or job.id in self.more.parents:
            outcome = carried(self._at_hand(job.id, job.version, out), job.state)
            self._tell(job.id, job.continuations, outcome, out, is_last=True)

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
        """Go on telling ends to many; ask for parents that are unknown, and give up on those that nobody knows."""
        for parent in self.more.tick(out):
            self.pipeline.follow(parent, self)
        while self._again and not out.budget.is_spent:
            job = self.pipeline.store.jobs.get(self._again.pop())
            if job is not None and job.state is AWAITING:
                self._report_wait(job, out)
                out.budget.spend(1, 0)
        if caught_up:
            self._look_at_pending(election.now_ms, out)

    def _look_at_pending(self, now_ms: int, out: LaneOutput) -> None:
        sought, pending_ms = self._sought, self.pipeline.rules.pending_ms
        while not out.budget.is_spent and (parent := sought.next(now_ms)) is not None:
            links = self.pending[parent]
            if sought.is_over(parent, links, pending_ms, now_ms):
                self._give_up(parent, out)
            else:
                sought.ask(parent, links, pending_ms, now_ms, out)
                sought.look_again(parent, links, pending_ms, now_ms)

    def _added(self, link: wire.ContinuationAdded, cause: str, election: Election, out: LaneOutput) -> None:
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
        if not waiting:
            self._sought.begin(link.job_id, election.now_ms + ASK_AFTER_MS)
        self.pipeline.follow(link.job_id, self)
        last = Link(link.child, link.on.value, election.now_ms, cause)
        if len(waiting) >= LISTED_MAX:
            self.more.add(link.job_id, link.child, link.on, out)
            # The last one tells since when nothing else has come.
            waiting, last = waiting[:-1], waiting[-1]._replace(since_ms=election.now_ms)
        self.pending[link.job_id] = (*waiting, last)
        out.state[PENDING_KEY + link.job_id] = self.pending[link.job_id]

    def _wait_or_report(self, parent: Job, child: str, on: ContinueOn, out: LaneOutput) -> None:
        if verdict(on, parent.state) != "wait":
            event = self._at_hand(parent.id, parent.version, out)
            self._report_end(parent.id, parent.state, child, on, event, out)
        elif (child, on) in parent.continuations:
            pass  # reported twice
        elif len(parent.continuations) >= LISTED_MAX:
            self.pipeline.follow(parent.id, self)
            self.more.add(parent.id, child, on, out)
        else:
            self.pipeline.follow(parent.id, self)
            waiting = structs.replace(parent, continuations=(*parent.continuations, (child, on)))
            self.pipeline.store.jobs[parent.id] = out.state[parent.id] = waiting

    def _found(self, found: wire.ParentFound, _cause: str, _election: Election, out: LaneOutput) -> None:
        """Take what the read model says of a parent for which jobs still wait here, and nowhere else."""
        parent, state, links = found.job_id, found.state, self.pending.get(found.job_id)
        if links is None or question_of(links) != found.question or (state is not None and state not in FINAL_STATES):
            out.counts["joblog_stale_reports_total", "parent.found"] += 1
        elif state is None:
            self._sought.note_absent(parent)  # it may still be created
        else:
            self.pipeline.unfollow(parent, self)
            has = wire.Outcome(state, found.result, found.exception, found.omitted)
            self._tell(parent, self._taken_out(parent, out), has, out, is_last=True)

    def _give_up(self, parent: str, out: LaneOutput) -> None:
        self.pipeline.unfollow(parent, self)
        why = unknown(parent, self.pipeline.rules.pending_ms, is_absent=self._sought.is_absent(parent))
        self._tell(parent, self._taken_out(parent, out), wire.Outcome(None, omitted=why), out, is_last=True)

    def _tell(
        self,
        parent: str,
        waiting: Iterable[tuple[str, ContinueOn]],
        outcome: wire.Outcome,
        out: LaneOutput,
        *,
        is_last: bool = False,
    ) -> None:
        """Tell some of these of an end, the others in later turns; `is_last` if no other end will come."""
        for number, (child, on) in enumerate(waiting):
            if number < AT_ONCE_MAX and not out.budget.is_spent:
                self._report_outcome(parent, child, on, outcome, out)
            else:
                self.more.add(parent, child, on, out)
        self.more.end(parent, outcome, out, is_last=is_last)

    def _taken_out(self, parent: str, out: LaneOutput) -> tuple[tuple[str, ContinueOn], ...]:
        """Those who waited for a parent that was unknown, and do so no longer; each once."""
        self._sought.forget(parent)
        out.state[PENDING_KEY + parent] = None
        out.budget.spend(1, 0)
        return tuple(dict.fromkeys((link.child, ContinueOn(link.on)) for link in self.pending.pop(parent)))

    def _report_end(
        self, parent: str, state: State, child: str, on: ContinueOn, event: wire.JobEvent | None, out: LaneOutput
    ) -> None:
        self._report_outcome(parent, child, on, carried(event, state), out)

    def _report_outcome(
        self, parent: str, child: str, on: ContinueOn, outcome: wire.Outcome, out: LaneOutput
    ) -> None:
        """Report an end to a continuation, or, without a state, why nobody knows of such a parent."""
        out.budget.spend(1, size_of(outcome))
        state = outcome.state
        if state is None:
            report = wire.ParentEnded(
                job_id=child, parent=parent, state=None, run=False, reason=outcome.omitted or ""
            )
            out.reports.append((lane_of_job(child), child, report))
            return
        decided = verdict(on, state)
        run, why = decided == "run", reason(parent, state, decided)
        report = wire.ParentEnded(
            job_id=child,
            parent=parent,
            state=state,
            run=run,
            reason=why,
            result=outcome.result,
            exception=outcome.exception,
            omitted=outcome.omitted,
        )
        out.reports.append((lane_of_job(child), child, report))


def _last_event(job: Job, out: LaneOutput) -> wire.JobEvent:
    """The event that led to where the job is, which this turn wrote."""
    written = (data for key, _, _, data, _, _ in reversed(out.events) if key == job.id)
    return next(data for data in written if isinstance(data, wire.JobEvent) and data.version == job.version)
