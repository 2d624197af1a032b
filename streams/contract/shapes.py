"""Whether names, instants and limits in a struct are proper: what costs too much, or is too much, for msgspec."""

import re
from datetime import MAXYEAR, MINYEAR, datetime
from functools import lru_cache
from typing import Final

from joblog.streams.contract import fields, wire
from joblog.streams.contract.fields import TASK_PATTERN, WORKER_PATTERN, match_job_id
from joblog.streams.contract.relations import limit_problem, unique_problem

# In both of these `$` would let a line end follow; a full match does not.
_task: Final = re.compile(TASK_PATTERN).fullmatch
_worker: Final = re.compile(WORKER_PATTERN).fullmatch


def is_time(instant: datetime) -> bool:
    """Whether an instant stays within the calendar in any zone."""
    return MINYEAR < instant.year < MAXYEAR


def is_limit(limit: wire.Limit) -> bool:
    return limit_problem(limit.kind, limit.capacity, limit.interval_s) is None


def is_unique(unique: wire.Unique) -> bool:
    return unique_problem(unique.policy, unique.until, unique.period_s, unique.wait_s) is None


def is_job_id(text: str) -> bool:
    return match_job_id(text) is not None


is_queue: Final = lru_cache(maxsize=10_000)(fields.is_queue)


@lru_cache(maxsize=10_000)
def is_task(text: str) -> bool:
    return _task(text) is not None


def is_worker(text: str) -> bool:
    return _worker(text) is not None
