"""Continuations: jobs that wait for another to end, in whatever lane, and those whose parent is not created yet.

The lane of a continuation tells the lane of its parent that it waits; that lane keeps the wait in the parent's own
record, or, until the parent's command is read, in a record of this feature; and tells the outcome back.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.lane.feature import Feature, ReportHandler
from joblog.streams.lane.features.verdicts import CONTINUATIONS_MAX, reason, verdict
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election
from msgspec import msgpack, structs

PENDING_KEY: Final = "pending:"

#: The jobs that wait for one parent: child, what it waits for, and since when (unix milliseconds).
Links = tuple[tuple[str, str, int], ...]


class Continuations(Feature):
    """Who waits for whom, and what they are told; its records are the waits for parents that nobody has created."""

    prefix: ClassVar = PENDING_KEY
    decoder: ClassVar = msgpack.Decoder(Links)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.pending: dict[str, Links] = {}

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        self.pending[key] = value

    def reports(self) -> Mapping[type, ReportHandler]:
        return {wire.ContinuationAdded: self._added, wire.ParentEnded: self.pipeline.report}

    def appeared(self, job: Job, out: LaneOutput) -> None:
        """Let those wait for it that came before it, and let its own parent know that it waits."""
        if job.id in self.pending:
            links = self.pending.pop(job.id)
            job.continuations = tuple(dict.fromkeys((child, ContinueOn(on)) for child, on, _ in links))
            out.state[PENDING_KEY + job.id] = None
        if job.parent is not None and job.on is not None and job.state not in FINAL_STATES | {State.SCHEDULED}:
            link = wire.ContinuationAdded(job_id=job.parent, child=job.id, on=job.on)
            out.reports.append((lane_of_job(job.parent), job.parent, link))

    def ended(self, job: Job, out: LaneOutput) -> None:
        """Tell those whose condition is decided; the others wait on, for a Failed job may be requeued."""
        if not job.continuations:
            return
        waiting = []
        for child, on in job.continuations:
            if verdict(on, job.state) == "wait":
                waiting.append((child, on))
            else:
                self._tell(job.id, job.state, child, on, out)
        job.continuations = tuple(waiting)

    def forgotten(self, job: Job, out: LaneOutput) -> None:
        """Nobody waits for ever: a Failed job that is not kept any longer will not be requeued from here."""
        for child, on in job.continuations:
            self._tell(job.id, job.state, child, on, out)

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Give up on parents that nobody creates."""
        if caught_up and self.pending:
            for parent, links in list(self.pending.items()):
                if election.now_ms - links[-1][2] > self.pipeline.rules.pending_ms:
                    self._give_up(parent, out)

    def _added(self, link: wire.ContinuationAdded, _cause: str, election: Election, out: LaneOutput) -> None:
        parent = self.pipeline.store.jobs.get(link.job_id)
        if parent is not None:
            self._wait_or_tell(parent, link.child, link.on, out)
            return
        remembered = self.pipeline.ended.get(link.job_id)
        if remembered is not None:
            self._tell(link.job_id, remembered[0], link.child, link.on, out)
            return
        # The parent's own command may not have been read yet, for it lies in another partition.
        waiting = self.pending.get(link.job_id, ())
        if len(waiting) >= CONTINUATIONS_MAX:
            self._turn_away(link.job_id, link.child, out)
            return
        self.pending[link.job_id] = (*waiting, (link.child, link.on.value, election.now_ms))
        out.state[PENDING_KEY + link.job_id] = self.pending[link.job_id]

    def _wait_or_tell(self, parent: Job, child: str, on: ContinueOn, out: LaneOutput) -> None:
        if verdict(on, parent.state) != "wait":
            self._tell(parent.id, parent.state, child, on, out)
        elif (child, on) in parent.continuations:
            pass  # reported twice
        elif len(parent.continuations) >= CONTINUATIONS_MAX:
            self._turn_away(parent.id, child, out)
        else:
            waiting = structs.replace(parent, continuations=(*parent.continuations, (child, on)))
            self.pipeline.store.jobs[parent.id] = out.state[parent.id] = waiting

    def _give_up(self, parent: str, out: LaneOutput) -> None:
        for child, _, _ in self.pending.pop(parent):
            why = f"Job {parent} is unknown: it was never created, or ended too long ago"
            self._turn_away(parent, child, out, why)
        out.state[PENDING_KEY + parent] = None

    def _tell(self, parent: str, state: State, child: str, on: ContinueOn, out: LaneOutput) -> None:
        outcome = verdict(on, state)
        said = wire.ParentEnded(
            job_id=child, parent=parent, state=state, run=outcome == "run", reason=reason(parent, state, outcome)
        )
        out.reports.append((lane_of_job(child), child, said))

    def _turn_away(self, parent: str, child: str, out: LaneOutput, why: str | None = None) -> None:
        """Let a continuation be deleted, since its parent cannot be waited for."""
        text = why or f"Job {parent} has {CONTINUATIONS_MAX} continuations already"
        said = wire.ParentEnded(job_id=child, parent=parent, state=None, run=False, reason=text)
        out.reports.append((lane_of_job(child), child, said))
