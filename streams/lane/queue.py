"""The ready order of one queue: highest priority first, then oldest; by task, because not every worker knows all."""

from collections.abc import Container, Mapping

from joblog.streams.contract.states import State
from joblog.streams.lane.job import Job
from joblog.streams.lane.waiting import Waiting


class ReadyQueue:
    """The Enqueued jobs of one queue; false when there are none."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return sum(map(len, self._tasks.values()))

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def add(self, job: Job) -> None:
        """Let an Enqueued job wait."""
        waiting = self._tasks.get(job.task)
        if waiting is None:
            waiting = self._tasks[job.task] = Waiting(State.ENQUEUED)
        waiting.add((-job.priority, job.created_ms, job.id, job.version))

    def left(self, task: str, jobs: Mapping[str, Job]) -> None:
        """Note that a job of this task waits no more, although `pop` did not give it."""
        waiting = self._tasks.get(task)
        if waiting is not None:
            waiting.left(jobs)
            if not waiting:
                del self._tasks[task]

    def pop(self, tasks: Container[str], jobs: Mapping[str, Job]) -> Job | None:
        """The next job whose task is among `tasks`, or None."""
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
