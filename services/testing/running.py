"""What a test does with time: it runs jobs, lets time pass, and lets runs take time or lose their worker."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from joblog.projections.monitor.models import JobDetails
from joblog.services.client.job_commands import AnyTask
from joblog.services.client.options import name_of
from joblog.services.testing.broker import Broker
from joblog.services.testing.incidents import Incidents
from joblog.services.testing.inline_worker import InlineWorker
from joblog.services.testing.ready_jobs import ReadyJobs
from joblog.services.testing.telling import history_of
from joblog.streams.errors import JoblogError

#: Jobs that one call runs at most: a job that creates itself again would never end.
RUNS_MAX = 10_000


class RunRaised(JoblogError):
    """A task raised, and the call was asked to say so; the text has the traceback. The job is as it is then."""


class TooManyRuns(JoblogError):
    """So many jobs were run that one of them probably creates itself, or is retried, without end."""


class Running:
    """What `InMemoryJoblog` has of this."""

    _broker: Broker
    _ready: ReadyJobs
    _worker: InlineWorker
    _incidents: Incidents

    def job(self, job_id: str) -> JobDetails:
        """A job, as it is now."""
        raise NotImplementedError

    def _learn(self, task: AnyTask) -> None:
        raise NotImplementedError

    # --- running ---

    def run_next(self, *, queue: str | None = None, raises: bool = False) -> JobDetails | None:
        """Run the job that is next: the highest priority, then the oldest; None if none is ready.

        - queue: only of this queue. raises: RunRaised if the task raises, whatever its retry policy makes of it.

        Raises UnknownTask if there are ready jobs, and only such whose task is not known here.
        """
        job_id = self._ready.run_one(queue)
        return None if job_id is None else self._ran_one(job_id, raises)

    def run_all(self, *, queue: str | None = None, raises: bool = False, limit: int = RUNS_MAX) -> list[JobDetails]:
        """Run jobs until none is ready, those too that are created meanwhile; returns each run's job as it was then.

        Schedules and retries that lie ahead stay there: see `advance`, `run_for` and `drain`.
        """
        return self._ran(self._ready.runs(queue), raises, limit)

    def run_for(
        self,
        by: timedelta | float = 0,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        raises: bool = False,
        limit: int = RUNS_MAX,
    ) -> list[JobDetails]:
        """Let time pass as `advance` does, and run each job when it becomes ready, those of recurring jobs, too."""
        until_ms = self._after(by, timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))
        return self._ran(self._ready.over_time(until_ms), raises, limit)

    def drain(self, *, raises: bool = False, limit: int = RUNS_MAX) -> list[JobDetails]:
        """Run everything to its end: what is ready, then time passes to the next schedule or retry, and so on.

        Recurring jobs, which have no end, are run if they are due on the way.
        """
        return self._ran(self._ready.over_time(None), raises, limit)

    def _ran(self, runs: Iterator[str], raises: bool, limit: int) -> list[JobDetails]:
        ran: list[JobDetails] = []
        for job_id in runs:
            ran.append(self._ran_one(job_id, raises))
            if len(ran) > limit:
                last = f"the last one was {ran[-1].task} {job_id}\n{history_of(ran[-1])}"
                raise TooManyRuns(f"{limit} jobs were run, and there are more: {last}")
        return ran

    def _ran_one(self, job_id: str, raises: bool) -> JobDetails:
        job = self.job(job_id)
        if raises:
            _raise_for(job)
        return job

    # --- time ---

    @property
    def now(self) -> datetime:
        """The present, by its clock. Your own code sees the machine's clock."""
        return datetime.fromtimestamp(self._broker.now_ms / 1000, UTC)

    def advance(
        self, by: timedelta | float = 0, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let time pass (a timedelta or seconds, and what the names say); nothing is run.

        Schedules, retries and recurring jobs become due at their times. In a task, or in what it calls, this is time
        that its run takes: it may time out, and its deadline may come.
        """
        self._broker.advance_to(self._after(by, timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)))

    def takes(self, task: AnyTask, by: timedelta | float) -> None:
        """From now on each run of this task takes so long: time passes when all is done, before its end is reported.

        So a run that takes longer than its time-out has done its work, and Failed all the same.
        """
        self._learn(task)
        self._incidents.takes_ms[name_of(task)] = _milliseconds(by)

    def _after(self, by: timedelta | float, more: timedelta) -> int:
        return self._broker.now_ms + _milliseconds(by) + _milliseconds(more)

    # --- losses ---

    def lose_worker(self, *, runs: int = 1) -> None:
        """Lose the worker, as if its process was killed, and let its lease pass (15 s of the test's clock).

        In a task, or in what it calls: here and now. The call does not return; `finally` blocks are run, which a
        killed process would not do. Elsewhere: of the next run, or the next `runs` ones, when all of it is done but
        the report of its end, which is the worst moment for what must not be done twice.

        The lanes elect the job anew, as they do it for a lost worker: at once, or as a failure if it was lost too
        often (`RetryPolicy.lost_max`, `count_lost`). Another worker takes it then.
        """
        if self._worker.is_running:
            if runs != 1:
                raise JoblogError("runs= has no effect in a task: its worker is lost at once")
            self._worker.lose()
        self._incidents.to_lose = runs

    def lose_lease(self) -> None:
        """In a task, or in what it calls: the worker cannot renew its lease, as without Kafka, until that is over.

        The run's token says "lease lost", and the job is elected anew; the task goes on, and how it ends counts for
        nothing.
        """
        self._worker.lose_lease()


def _milliseconds(by: timedelta | float) -> int:
    length_ms = round((by.total_seconds() if isinstance(by, timedelta) else by) * 1000)
    if length_ms < 0:
        raise JoblogError(f"time does not go back: {by!r}")
    return length_ms


def _raise_for(job: JobDetails) -> None:
    """Raise if the last run of the job raised."""
    for one in job.history:
        if one.type == "job.processing":
            return
        if one.type == "job.failed":
            exception = one.data["exception"]
            said = f"{job.task} {job.id} raised {exception['type']}: {exception.get('message', '')}"
            raise RunRaised(f"{said}\n{exception.get('details', '')}".rstrip())
