"""What a job depends on that would be otherwise, and what it would have heard of that."""

from collections.abc import Mapping

from joblog.streams.replay.batch_jobs import steps_in
from joblog.streams.replay.batches import Began
from joblog.streams.replay.continuations import Ends, steps_after
from joblog.streams.replay.history import History
from msgspec import Struct, structs


class Around(Struct, frozen=True):
    """Of one job.

    - parents: how those ended that it waits for, and would have; batch: when its batch began, and would have.
    """

    parents: Mapping[str, Ends] = {}
    batch: Began | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows of one of them what it would have come to."""
        is_batch = self.batch is not None and self.batch.is_unknown
        return is_batch or any(ends.is_unknown for ends in self.parents.values())

    @property
    def is_changed(self) -> bool:
        """Whether one of them would be otherwise, and not just the job."""
        is_batch = self.batch is not None and self.batch.differs
        return is_batch or any(ends.differ for ends in self.parents.values())

    def after(self, history: History) -> History:
        """The job with the steps that it would have had."""
        found = structs.replace(history, steps=steps_after(history, self.parents))
        if self.batch is not None:
            found.steps = steps_in(found, self.batch)
        return found
