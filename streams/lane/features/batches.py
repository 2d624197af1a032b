"""Batches: jobs that are created together, counted together, and may be waited for, and cancelled, as one.

The lane that a batch's id names keeps its record (batch_owner.py; what it says is in batch_words.py). The lanes of
its jobs count these, and report what they have counted once in a turn (batch_parts.py). Both are the same feature,
since an inner batch is counted in the lane of its record as a job is, in the turn that creates it.

An addition to a batch is one transaction of a client: the jobs, behind them a mark in each of their lanes, and in the
batch's lane which lanes these are. A batch has not ended before the counts of all of them are there, marks included,
in whatever order they come.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from joblog.streams.contract import wire
from joblog.streams.lane.extras import USES_BATCH
from joblog.streams.lane.feature import CommandHandler, Feature, ReportHandler
from joblog.streams.lane.features import parent_reports
from joblog.streams.lane.features.batch_owner import BatchOwner
from joblog.streams.lane.features.batch_parts import BatchParts
from joblog.streams.lane.features.batch_records import BATCH_KEY, PART, Batch, BatchWait, Part
from joblog.streams.lane.features.batch_words import unknown_lane
from joblog.streams.lane.job import Job, waits_for_start
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Rejection
from msgspec import msgpack


class Batches(Feature):
    """The batches whose records a lane keeps, and those of which it has jobs."""

    uses: ClassVar = USES_BATCH
    prefix: ClassVar = BATCH_KEY
    decoder: ClassVar = msgpack.Decoder(Batch | Part | BatchWait)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.parts = BatchParts(pipeline)
        self.owner = BatchOwner(pipeline, self.parts)

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        if isinstance(value, Part):
            self.parts.load(key.removesuffix(PART), value)
        elif isinstance(value, BatchWait):
            self.owner.waits.load(key, value)
        else:
            self.owner.load(key, value)

    def found(self, job: Job, clock_ms: int) -> None:
        if waits_for_start(job):
            assert job.extras is not None
            self.parts.waits(job.extras.batch or "", job.id)

    def loaded(self, clock_ms: int) -> None:
        self.owner.loaded()
        self.parts.loaded()

    def commands(self) -> Mapping[type, CommandHandler]:
        return {
            wire.CreateBatch: self.owner.create,
            wire.AttachToBatch: self.owner.attach,
            wire.CancelBatch: self.owner.cancel,
            wire.MarkBatch: self._mark,
        }

    def reports(self) -> Mapping[type, ReportHandler]:
        return {
            wire.BatchCounted: self.owner.counted,
            wire.BatchTold: self._told,
            wire.BatchAwaited: self.owner.awaited,
            # Instead of the handler for jobs alone: what waited for the parent may be a batch.
            wire.ParentEnded: self._parent_ended,
        }

    def _parent_ended(self, report: wire.ParentEnded, cause: str, election: Election, out: LaneOutput) -> None:
        if not self.owner.parent_ended(report, cause, election, out):
            parent_reports.take(self.pipeline, report, cause, election, out)

    def moved(self, before: Job | None, job: Job, what: Any, election: Election, out: LaneOutput) -> None:
        extras = job.extras
        assert extras is not None
        batch = extras.batch
        assert batch is not None
        if before is None:
            self.parts.moved(batch, None, job.state, out)
            self.parts.job_created(batch, job)
        elif before.state is not job.state:
            self.parts.moved(batch, before.state, job.state, out)
            self.parts.job_moved(batch, job)

    def may_start(self, job: Job, election: Election, out: LaneOutput) -> str | None:
        return self.parts.may_start(job, election, out) if self.parts.cancelled else None

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Go on with what is started or cancelled, and see which batches have ended."""
        self.parts.tick(election, out)
        self.owner.tick(caught_up, election, out)

    def turn_ended(self, out: LaneOutput) -> None:
        self.parts.turn_ended(out)

    def _mark(self, received: wire.Received, _election: Election, _out: LaneOutput) -> Rejection | None:
        mark = received.command
        assert isinstance(mark, wire.MarkBatch)
        if rejected := unknown_lane(self.pipeline.lanes, mark.batch_id):
            return rejected
        if self.parts.mark(mark.batch_id, mark.mark_id):
            return None
        return Rejection("duplicate", f"this addition to batch {mark.batch_id} was made before")

    def _told(self, report: wire.BatchTold, _cause: str, election: Election, out: LaneOutput) -> None:
        if not self.parts.told(report, out):
            out.counts["joblog_stale_reports_total", "batch.told"] += 1
        elif report.what == "cancelled":
            self.owner.cancel_inner(report, election, out)
