"""Which continuations are told when an ended job is requeued: those whose condition its end had not met.

The lane of the continuation says so, and is told when the job is live again. The feature follows only such jobs; it
knows so many of them as the lane keeps Failed jobs.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.lane.feature import Feature, ReportHandler
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election
from msgspec import msgpack

FORMER_KEY: Final = "former:"
#: Of one job: they are in one record, which must fit into a Kafka record.
CHILDREN_MAX: Final = 10_000

Children = tuple[str, ...]


class FormerContinuations(Feature):
    """By ended job, the continuations whose condition it had not met; its records are the same."""

    prefix: ClassVar = FORMER_KEY
    decoder: ClassVar = msgpack.Decoder(Children)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.children: dict[str, Children] = {}

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        self.children[key] = value

    def loaded(self, clock_ms: int) -> None:
        for parent in self.children:
            self.pipeline.follow(parent, self)

    def reports(self) -> Mapping[type, ReportHandler]:
        return {wire.ContinuationUnmet: self._unmet}

    def _unmet(self, report: wire.ContinuationUnmet, _cause: str, _election: Election, out: LaneOutput) -> None:
        parent, child = report.job_id, report.child
        if parent in self.pipeline.store.jobs:  # it has been requeued meanwhile
            _tell(parent, child, out)
            return
        known = self.children.get(parent, ())
        if child in known or len(known) >= CHILDREN_MAX:
            out.counts["joblog_stale_reports_total", "continuation.unmet"] += 1
            return
        self.pipeline.follow(parent, self)
        self.children[parent] = out.state[FORMER_KEY + parent] = (*known, child)

    def appeared(self, job: Job, out: LaneOutput) -> None:
        """The job is requeued, or created again: let them wait for its new end."""
        for child in self.children.pop(job.id, ()):
            _tell(job.id, child, out)
            out.state[FORMER_KEY + job.id] = None

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Forget the oldest while there are too many."""
        self.forget_oldest(self.children, self.pipeline.rules.failed_kept, out)


def _tell(parent: str, child: str, out: LaneOutput) -> None:
    out.reports.append((lane_of_job(child), child, wire.ParentRequeued(job_id=child, parent=parent)))
