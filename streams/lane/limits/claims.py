"""What the jobs of a lane claim: which limits each has got, which one it waits for, and who may ask another lane.

A job takes its limits one after another in an order that is the same for all jobs, so no two of them wait for each
other: first those that count running jobs, then the rates. What it has got it keeps while it waits for the next one.

Of the jobs that wait for a limit of another lane only the first few ask its owner; the others stand in a line here.
"""

from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.relations import RATES
from joblog.streams.lane.job import Job
from joblog.streams.lane.limits.line import Line, place_of
from joblog.streams.lane.limits.records import LimitId

#: How many jobs of one lane ask for a limit of another one at a time.
ASK_MIN: Final = 2
ASK_MAX: Final = 64


def id_of(limit: wire.Limit) -> LimitId:
    """What makes two limits the same."""
    return limit.kind, limit.key


def owner_of(limit: LimitId, lanes: int) -> int:
    """The lane that decides who gets this limit."""
    return lane_of_queue(f"{limit[0]}:{limit[1]}", lanes)


def in_order(limits: tuple[wire.Limit, ...]) -> tuple[wire.Limit, ...]:
    """The limits of a job in the order in which all jobs take theirs; of two with one key, the first one."""
    if len(limits) == 1:
        return limits
    first = {id_of(limit): limit for limit in reversed(limits)}
    return tuple(sorted(first.values(), key=lambda limit: (limit.kind in RATES, limit.kind, limit.key)))


def limits_of(job: Job) -> tuple[wire.Limit, ...]:
    """The limits that a job has, in that order."""
    return in_order(job.extras.limits) if job.extras is not None else ()


class Claim:
    """One job's way through its limits.

    - got: how many of `limits` it has. from_ms: before that it may not start.
    - is_waiting: for the next one of `limits`. complete_ms: since when it has all of them; 0 if it has not.
    """

    __slots__ = ("complete_ms", "from_ms", "got", "is_waiting", "job_id", "limits")

    def __init__(self, job: Job) -> None:
        self.job_id = job.id
        self.limits = limits_of(job)
        self.got = 0
        self.from_ms = 0
        self.is_waiting = False
        self.complete_ms = 0

    @property
    def next(self) -> wire.Limit | None:
        """The limit that it lacks, None if it has all."""
        return self.limits[self.got] if self.got < len(self.limits) else None

    @property
    def permits(self) -> tuple[wire.Limit, ...]:
        """The limits that it has got."""
        return self.limits[: self.got]


class Elsewhere:
    """A limit that another lane owns, and the jobs of this lane that wait for it.

    - asked: those that asked its owner -> the number of the question, and the job as it was then.
    - waits_for: what its owner said last of those that have to wait; untold: jobs that wait, of which no event says
      yet what they wait for, because the owner has said nothing, or so many wait that they are told by and by.
    """

    __slots__ = ("asked", "limit", "line", "untold", "waits_for")

    def __init__(self, limit: wire.Limit) -> None:
        self.limit = limit
        self.line = Line()
        self.asked: dict[str, tuple[int, Job]] = {}
        self.waits_for: str | None = None
        self.untold: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self.asked or self.line)

    def jobs(self) -> tuple[str, ...]:
        """All that wait."""
        return (*self.asked, *self.line)

    def next(self, job: Job | None = None) -> str | None:
        """Who is to ask now; `job`, which has just come, may overtake those that asked."""
        room = min(max(self.limit.capacity, ASK_MIN), ASK_MAX)
        if len(self.asked) < room:
            return self.line.take()
        if job is None or len(self.asked) >= 2 * room or job.id not in self.line:
            return None
        if job.priority <= min(other.priority for _, other in self.asked.values()):
            return None
        self.line.remove(job.id)
        return job.id

    def add(self, job: Job, tenant: str | None) -> None:
        """Let a job wait."""
        self.line.add(tenant, place_of(job.priority, job.created_ms, job.id))
