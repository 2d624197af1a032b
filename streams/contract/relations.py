"""What jobs may ask of each other: limits that they share, keys of which one lives at a time, parents to wait for."""

from enum import StrEnum
from typing import Final


class Need(StrEnum):
    """How many of its parents a continuation waits for: all of them, or any one."""

    ALL = "all"
    ANY = "any"


class ParentKind(StrEnum):
    """What a continuation waits for: the end of a job, or of a batch."""

    JOB = "job"
    BATCH = "batch"


class LimitKind(StrEnum):
    """How a limit counts.

    - mutex: one job at a time. semaphore: `capacity` jobs at a time.
    - fixed_window: `capacity` starts in each interval, which begin at multiples of it since 1970.
    - sliding_window: `capacity` starts in any interval.
    - token_bucket: `capacity` starts at once, and one more as each `capacity`-th part of the interval passes.
    """

    MUTEX = "mutex"
    SEMAPHORE = "semaphore"
    FIXED_WINDOW = "fixed_window"
    SLIDING_WINDOW = "sliding_window"
    TOKEN_BUCKET = "token_bucket"  # noqa: S105 - no password


class LimitScope(StrEnum):
    """What a limit is for: the jobs that name its key, or all jobs of a queue, whose name is the key."""

    KEY = "key"
    QUEUE = "queue"


#: The limits that count starts in an interval; the others count the jobs that run.
RATES: Final = frozenset({LimitKind.FIXED_WINDOW, LimitKind.SLIDING_WINDOW, LimitKind.TOKEN_BUCKET})
#: How many limits one job may have.
LIMITS_MAX: Final = 10
#: How many parents one job may wait for.
PARENTS_MAX: Final = 100
#: How a parent ended is the parameter of its continuation with this name and the parent's id; nobody else may set it.
PARENT_PARAMETER: Final = "Parent:"
#: A result that is larger as JSON is not handed to continuations, nor is an exception's traceback.
OUTCOME_BYTES_MAX: Final = 65_536


class UniquePolicy(StrEnum):
    """What becomes of a job whose unique key another job has.

    - reject: it is not created.
    - existing: it is not created, and whoever asks for it is given the other one.
    - replace: it is created, and the other one is deleted.
    - debounce: it is created, to run after a wait, and the other one is deleted if it has not started.
    """

    REJECT = "reject"
    EXISTING = "existing"
    REPLACE = "replace"
    DEBOUNCE = "debounce"


class UniqueUntil(StrEnum):
    """How long a job has its unique key: until it starts, until it ends, or for a period after its creation."""

    START = "start"
    END = "end"
    PERIOD = "period"


def limit_problem(kind: LimitKind, capacity: int, interval_s: float | None) -> str | None:
    """What is wrong with a limit; None if nothing is."""
    if kind in RATES:
        return f"a {kind} needs interval_s, the seconds in which it counts" if interval_s is None else None
    if interval_s is not None:
        return f"a {kind} has no interval: leave interval_s out, or choose {LimitKind.SLIDING_WINDOW}"
    if kind is LimitKind.MUTEX and capacity != 1:
        return f"a mutex has the capacity 1: choose {LimitKind.SEMAPHORE} for {capacity}"
    return None


def unique_problem(
    policy: UniquePolicy, until: UniqueUntil, period_s: float | None, wait_s: float | None
) -> str | None:
    """What is wrong with a unique key; None if nothing is."""
    if (until is UniqueUntil.PERIOD) is (period_s is None):
        return "period_s belongs to until=period: give both, or neither"
    if (policy is UniquePolicy.DEBOUNCE) is (wait_s is None):
        return "wait_s belongs to policy=debounce: give both, or neither"
    return None
