"""The jobs of a lane, and where each of them waits."""

from collections.abc import Callable

from joblog.streams.contract.states import ENQUEUED, SCHEDULED
from joblog.streams.lane.job import Job
from joblog.streams.lane.limits.gate import AnyGate
from joblog.streams.lane.limits.queue_owner import QueueOwner
from joblog.streams.lane.queue import ReadyQueue
from joblog.streams.lane.waiting import Waiting


class JobStore:
    """Live jobs by id; the Enqueued ones also by queue, the Scheduled ones by due time.

    - held: Enqueued jobs that a feature holds back; they are not in their queue. A job stays held back when it gets
      another version, but is still Enqueued.
    - paused: queues of which no job starts.
    - gates: the limits of queues that have one; owners: those that this lane gives out (features/queue_limits.py).
    - assigned_ms: when jobs were last assigned, by the election's clock; only kept where queues have limits.
    - elsewhere: queues of which jobs became ready although they do not live in this lane, which `is_home` tells;
      features/queues_elsewhere.py takes them out.
    - has_released: set by a feature that released jobs, so that a turn follows although nothing comes in.
    """

    __slots__ = (
        *("assigned_ms", "due", "elsewhere", "gates", "has_released", "held", "is_home", "jobs", "owners"),
        *("paused", "ready"),
    )

    def __init__(self, is_home: Callable[[str], bool]) -> None:
        self.is_home = is_home
        self.elsewhere: set[str] = set()
        self.jobs: dict[str, Job] = {}
        self.ready: dict[str, ReadyQueue] = {}
        self.due = Waiting(SCHEDULED)
        self.held: set[str] = set()
        self.paused: set[str] = set()
        self.has_released = False
        self.gates: dict[str, AnyGate] = {}
        self.owners: dict[str, QueueOwner] = {}
        self.assigned_ms = 0

    def place(self, job: Job) -> None:
        """Put an Enqueued job into its queue, a Scheduled one among the due times."""
        state = job.state
        if state is ENQUEUED:
            if self.held and job.id in self.held:
                return
            queue = self.ready.get(job.queue)
            if queue is None:
                queue = self.ready[job.queue] = ReadyQueue(is_home=self.is_home(job.queue))
            if not queue.is_home:
                self.elsewhere.add(job.queue)
            queue.add(job)
        elif state is SCHEDULED:
            self.due.add((job.due_ms, job.id, job.version))

    def left(self, before: Job) -> None:
        """Remove a job from where it waited; `before` is the job as it was then."""
        state = before.state
        if state is ENQUEUED:
            if before.id in self.held:
                if self.jobs[before.id].state is not ENQUEUED:
                    self.held.remove(before.id)
                return
            queue = self.ready.get(before.queue)
            if queue is not None:
                queue.left(before.task, self.jobs)
                if not queue:
                    del self.ready[before.queue]
        elif state is SCHEDULED:
            self.due.left(self.jobs)

    def hold(self, job: Job) -> None:
        """Hold back a job that was just taken from its queue."""
        self.held.add(job.id)

    def unhold(self, job_id: str) -> Job | None:
        """Take a job that was held back, to start it; None if it has left its state meanwhile."""
        if job_id not in self.held:
            return None
        self.held.remove(job_id)
        return self.jobs[job_id]

    def release(self, job_id: str) -> None:
        """Put a job that was held back into its queue again, at its old place."""
        if job_id in self.held:
            self.held.remove(job_id)
            self.place(self.jobs[job_id])
