"""What becomes of assignments: runs that wait for a slot, runs that are stopped, jobs that go back at once."""

import logging
import time
from collections.abc import Iterable, Mapping
from math import inf

from joblog.services.tasks.context import Cause
from joblog.services.worker.assignments import Unreadable
from joblog.services.worker.execution.run import KnownTask, Run, RunKey
from joblog.services.worker.reporting.ending import Endings
from joblog.services.worker.reporting.reporting import Reports
from joblog.services.worker.slots import Slots
from joblog.streams.contract.wire import AnyAssignment, CancelJob, RunJob

log = logging.getLogger(__name__)


class Intake:
    """Fills `held` and the slots; belongs to the worker's loop.

    The runs in `held` are those whose end is not reported; whoever reports it takes the run out.
    """

    def __init__(
        self,
        *,
        worker: str,
        queues: Iterable[str],
        known: Mapping[str, KnownTask],
        slots: Slots,
        endings: Endings,
        reports: Reports,
    ) -> None:
        self._worker = worker
        self._queues = frozenset(queues)
        self._known = known
        self._slots = slots
        self._endings = endings
        self._reports = reports
        self._closed: str | None = None
        self.held: dict[RunKey, Run] = {}

    def accept(self, assignments: Iterable[AnyAssignment | Unreadable]) -> None:
        now = time.monotonic()
        runs: list[Run] = []
        for assignment in assignments:
            if isinstance(assignment, RunJob):
                self._take(assignment, now, runs)
            elif isinstance(assignment, Unreadable):
                self._reports.unreadable(assignment.lane, assignment.report)
            else:
                self._slots.add(runs)  # the run to cancel may be among these
                runs = []
                self._cancel(assignment)
        if runs:
            self._slots.add(runs)

    def close(self, reason: str) -> None:
        """Give back what waits, and whatever still comes."""
        self._closed = reason
        self.release(self._slots.withdraw_older(inf), reason)

    def release(self, runs: Iterable[Run], reason: str) -> None:
        for run in runs:
            self._endings.release(run, reason)

    def fence(self, runs: Iterable[Run], reason: str) -> None:
        """Stop runs whose lease may be over, and give them back; who has them by now rejects that."""
        for run in runs:
            self._slots.withdraw(run)
            run.stop(Cause.LEASE_LOST)
            self._endings.release(run, reason)

    def give_up(self, reason: str) -> None:
        """Stop and drop everything, without a word to anybody."""
        self._closed = reason
        self._slots.withdraw_older(inf)
        for run in list(self.held.values()):
            self._endings.cancel(run, reason)

    def _take(self, job: RunJob, now: float, runs: list[Run]) -> None:
        known = self._known.get(job.task)
        if self._closed is not None:
            self._reports.refused(job, self._worker, self._closed)
        elif known is None:
            self._reports.refused(job, self._worker, f"this worker knows no task {job.task}")
        elif job.queue not in self._queues:
            self._reports.refused(job, self._worker, f"this worker does not work the queue {job.queue}")
        elif (job.job_id, job.lease) not in self.held:
            run = Run(job, known, self._worker, self.held, now)
            self.held[run.key] = run
            runs.append(run)

    def _cancel(self, order: CancelJob) -> None:
        run = self.held.get((order.job_id, order.lease))
        if run is not None:
            self._slots.withdraw(run)
            self._endings.cancel(run, f"{Cause.CANCELLED}: {order.reason}")
