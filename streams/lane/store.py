"""The jobs of a lane, and where each of them waits."""

from joblog.streams.contract.states import ENQUEUED, SCHEDULED
from joblog.streams.lane.job import Job
from joblog.streams.lane.queue import ReadyQueue
from joblog.streams.lane.waiting import Waiting


class JobStore:
    """Live jobs by id; the Enqueued ones also by queue, the Scheduled ones by due time.

    - held: Enqueued jobs that a feature holds back; they are not in their queue.
    """

    __slots__ = ("due", "held", "jobs", "ready")

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.ready: dict[str, ReadyQueue] = {}
        self.due = Waiting(SCHEDULED)
        self.held: set[str] = set()

    def place(self, job: Job) -> None:
        """Put an Enqueued job into its queue, a Scheduled one among the due times."""
        state = job.state
        if state is ENQUEUED:
            queue = self.ready.get(job.queue)
            if queue is None:
                queue = self.ready[job.queue] = ReadyQueue()
            queue.add(job)
        elif state is SCHEDULED:
            self.due.add((job.due_ms, job.id, job.version))

    def left(self, before: Job) -> None:
        """Remove a job from where it waited; `before` is the job as it was then."""
        state = before.state
        if state is ENQUEUED:
            if before.id in self.held:
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

    def release(self, job_id: str) -> None:
        """Put a job that was held back into its queue again, at its old place."""
        if job_id in self.held:
            self.held.remove(job_id)
            self.place(self.jobs[job_id])
