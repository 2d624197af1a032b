"""What becomes of assignments: runs that wait for a slot, runs that are stopped, jobs that go back at once."""

import logging
from collections.abc import Iterable, Mapping
from math import inf

from joblog.services.tasks.context import Cause
from joblog.services.worker.assignments import Arrived, Unreadable
from joblog.services.worker.execution.run import AssignmentRecord, KnownTask, Leases, Run, RunKey, clock
from joblog.services.worker.orders import Orders
from joblog.services.worker.reports import Endings, Reports, RunMeters, position_of
from joblog.services.worker.served_lanes import ServedLanes
from joblog.services.worker.slots import Slots
from joblog.streams.contract.unreadable import failed_by_assignment
from joblog.streams.contract.wire import AnyAssignment, CancelJob, OrderWorker, RunJob, ServeQueue

log = logging.getLogger(__name__)


class Intake:
    """Makes runs of assignments, and ends them; belongs to the worker's loop.

    - held: the runs whose end is not reported; whoever reports it takes the run out.

    An error that nobody foresaw costs the assignment that led to it, which is parked, and no other.
    """

    def __init__(
        self,
        *,
        worker: str,
        lanes: int,
        queues: Iterable[str],
        known: Mapping[str, KnownTask],
        slots: Slots,
        endings: Endings,
        reports: Reports,
        meters: RunMeters,
        leases: Leases,
        orders: Orders,
        served: ServedLanes,
    ) -> None:
        self._worker = worker
        self._lanes = lanes
        self._leases = leases
        self._orders = orders
        self._served = served
        self._queues = frozenset(queues)
        self._known = known
        self._slots = slots
        self._endings = endings
        self._reports = reports
        self._meters = meters
        self._closed: str | None = None
        self.held: dict[RunKey, Run] = {}

    def accept(self, arrived: Iterable[Arrived]) -> None:
        now = clock()
        runs: list[Run] = []
        for record, assignment in arrived:
            try:
                if isinstance(assignment, RunJob):
                    self._take(assignment, record, now, runs)
                elif isinstance(assignment, CancelJob):
                    self._add(runs)  # the run to cancel may be among these
                    self._cancel(assignment)
                elif isinstance(assignment, OrderWorker):
                    self._orders.take(assignment)
                elif isinstance(assignment, ServeQueue):
                    self._served.tell(assignment.queue, assignment.lane, now)
                else:
                    self._park(record, assignment)
            except Exception as exc:  # noqa: BLE001 - the records behind this one are for other jobs
                self._fail(record, assignment, exc)
        self._add(runs)

    def _add(self, runs: list[Run]) -> None:
        """Let runs wait for a slot, and forget them here."""
        try:
            self._slots.add(runs)
        except Exception as exc:  # noqa: BLE001 - as above
            for run in runs:
                self._slots.withdraw(run)
                self._endings.fault(run, exc)
        runs.clear()

    def _park(self, record: AssignmentRecord, unreadable: Unreadable) -> None:
        """Send an assignment that cannot be read to the dead letters, and fail the run that it speaks of."""
        if unreadable.error is not None:
            raise unreadable.error
        reason = unreadable.reason
        log.error("assignment.parked", extra={"position": position_of(record), "reason": reason})
        self._reports.park(record, unreadable.code, reason)
        self._meters.parked(unreadable.code)
        self._fail_unread(record, reason)

    def _fail(self, record: AssignmentRecord, said: AnyAssignment | Unreadable, error: Exception) -> None:
        """An error of ours: park the record, and fail its run if it can be made out."""
        run = self.held.get((said.job_id, said.lease)) if isinstance(said, RunJob) else None
        if run is not None and run.record is record:
            self._endings.fault(run, error)
            return
        self._endings.park(record, error, {})
        self._fail_unread(record, f"{type(error).__name__}: {error}")

    def _fail_unread(self, record: AssignmentRecord, reason: str) -> None:
        made_out = failed_by_assignment(record.value(), self._worker, reason)
        if made_out is not None and made_out[0] < self._lanes:
            self._reports.failed(*made_out)

    def close(self, reason: str) -> None:
        """Give back what waits, and what still arrives."""
        self._closed = reason
        self.release(self._slots.withdraw_older(inf), reason)

    def open(self) -> None:
        """Take runs again."""
        self._closed = None

    def release(self, runs: Iterable[Run], reason: str) -> None:
        for run in runs:
            self._endings.release(run, reason)

    def fence(self, runs: Iterable[Run], reason: str) -> None:
        """Stop runs and give them back; if their lease is over, the elector rejects that."""
        for run in runs:
            self._slots.withdraw(run)
            run.stop(Cause.LEASE_LOST)
            self._endings.release(run, reason)

    def give_back_all(self, reason: str) -> None:
        """Stop everything and give it back: the leases are held, but the session is over."""
        self.close(reason)
        self.fence(list(self.held.values()), reason)

    def give_up(self, reason: str) -> None:
        """Stop everything and report nothing: the leases are over."""
        self._closed = reason
        self._slots.withdraw_older(inf)
        for run in list(self.held.values()):
            self._endings.cancel(run, reason)

    def _take(self, job: RunJob, record: AssignmentRecord, now: float, runs: list[Run]) -> None:
        known = self._known.get(job.task)
        if self._closed is not None:
            self._reports.refused(job, self._worker, self._closed)
        elif known is None:
            self._reports.refused(job, self._worker, f"this worker knows no task {job.task}")
        elif job.queue not in self._queues:
            self._reports.refused(job, self._worker, f"this worker does not work the queue {job.queue}")
        elif job.lane not in self._leases.renewed_at:
            self._reports.refused(job, self._worker, f"this worker has no lease from lane {job.lane}")
        elif (job.job_id, job.lease) not in self.held:
            run = Run(job, known, self._worker, self.held, now, self._leases, record)
            self.held[run.key] = run
            runs.append(run)

    def _cancel(self, order: CancelJob) -> None:
        run = self.held.get((order.job_id, order.lease))
        if run is not None:
            self._slots.withdraw(run)
            self._endings.cancel(run, f"{Cause.CANCELLED}: {order.reason}")
