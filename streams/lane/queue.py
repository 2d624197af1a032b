"""The ready order of one queue: highest priority first, then oldest; by task, because not every worker knows all."""

from collections.abc import Container, Mapping

from joblog.streams.contract.states import ENQUEUED
from joblog.streams.lane.job import Job
from joblog.streams.lane.waiting import Waiting


class ReadyQueue:
    """The Enqueued jobs of one queue; falsy when there are none. `is_home`: whether the queue lives in this lane."""

    __slots__ = ("_tasks", "is_home")

    def __init__(self, *, is_home: bool = True) -> None:
        self.is_home = is_home
        self._tasks: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return sum(map(len, self._tasks.values()))

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def add(self, job: Job) -> None:
        """Add an Enqueued job."""
        waiting = self._tasks.get(job.task)
        if waiting is None:
            waiting = self._tasks[job.task] = Waiting(ENQUEUED)
        waiting.add((-job.priority, job.created_ms, job.id, job.version))

    def count(self, tasks: Container[str]) -> int:
        """How many jobs have one of these tasks."""
        return sum(len(waiting) for task, waiting in self._tasks.items() if task in tasks)

    def left(self, task: str, jobs: Mapping[str, Job]) -> None:
        """Remove a job of this task that `pop` did not return, and that has another version by now."""
        waiting = self._tasks.get(task)
        if waiting is not None:
            waiting.left(jobs)
            if not waiting:
                del self._tasks[task]

    def pop(self, tasks: Container[str], jobs: Mapping[str, Job]) -> Job | None:
        """The next job whose task is among `tasks`, or None."""
        if len(self._tasks) == 1:
            return self._pop_only(tasks, jobs)
        best, first = None, None
        for task in tuple(self._tasks):
            if task in tasks:
                waiting = self._tasks[task]
                entry = waiting.first(jobs)
                if entry is None:
                    del self._tasks[task]
                elif first is None or entry < first:
                    best, first = waiting, entry
        return jobs[best.pop()[2]] if best is not None else None

    def _pop_only(self, tasks: Container[str], jobs: Mapping[str, Job]) -> Job | None:
        """The same where all jobs of the queue are of one task, as in most queues."""
        ((task, waiting),) = self._tasks.items()
        if task in tasks:
            job = waiting.take(jobs)
            if job is not None:
                return job
            del self._tasks[task]
        return None
