"""The jobs of a lane, and where each of them waits."""

from joblog.streams.contract.states import State
from joblog.streams.lane.job import Job
from joblog.streams.lane.queue import ReadyQueue
from joblog.streams.lane.waiting import Waiting


class JobStore:
    """Live jobs by id; those that are ready by queue, those that are scheduled by their instant.

    - held: Enqueued jobs that a feature holds back, out of their queue.
    """

    __slots__ = ("due", "held", "jobs", "ready")

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.ready: dict[str, ReadyQueue] = {}
        self.due = Waiting(State.SCHEDULED)
        self.held: set[str] = set()

    def place(self, job: Job) -> None:
        """Put a job where its state has it wait."""
        if job.state is State.ENQUEUED:
            queue = self.ready.get(job.queue)
            if queue is None:
                queue = self.ready[job.queue] = ReadyQueue()
            queue.add(job)
        elif job.state is State.SCHEDULED:
            self.due.add((job.due_ms, job.id, job.version))

    def left(self, before: Job) -> None:
        """Note that a job is not where it was any more, or has another version there."""
        if before.state is State.ENQUEUED:
            if before.id in self.held:
                self.held.remove(before.id)
                return
            queue = self.ready.get(before.queue)
            if queue is not None:
                queue.left(before.task, self.jobs)
                if not queue:
                    del self.ready[before.queue]
        elif before.state is State.SCHEDULED:
            self.due.left(self.jobs)

    def hold(self, job: Job) -> None:
        """Keep a job that was just taken from its queue out of it."""
        self.held.add(job.id)

    def release(self, job_id: str) -> None:
        """Let a job that was held back wait in its queue again, in its old place."""
        if job_id in self.held:
            self.held.remove(job_id)
            self.place(self.jobs[job_id])
