"""Why a job does not start: by what its history says, and by who runs now."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from joblog.projections.monitor.limits import Row, since_when, why
from joblog.streams.contract.states import State

NOW = datetime(2026, 11, 29, 12, 0, 7, tzinfo=UTC)
MUTEX = {"kind": "mutex", "key": "m"}


class Entry(NamedTuple):
    type: str
    data: dict[str, Any]


class Facts:
    """What is asked, given."""

    def __init__(self, holders: Sequence[str] = (), limit: Row | None = None, started: int = 0) -> None:
        self._holders, self._limit, self._started = holders, limit, started

    def holders(self, limits: Sequence[Row]) -> Sequence[Row]:
        return [{"id": one, **limit} for one in self._holders for limit in limits]

    def queue_limit(self, queue: str) -> Row | None:
        assert queue == "q"
        return self._limit

    def started(self, queue: str, since: datetime, most: int) -> int:
        assert queue == "q"
        assert since < NOW
        return min(self._started, most)


def reason(facts: Facts, told: str | None = None, state: State = State.ENQUEUED) -> str | None:
    row = {"state": state, "queue": "q", "spec": {"limits": [MUTEX]}}
    history = [Entry("job.priority_set", {}), Entry("job.held", {"waits_for": told})] if told else []
    return why(facts, row, history, NOW)


def semaphore(running: int, capacity: int = 5) -> Row:
    return {"kind": "semaphore", "capacity": capacity, "interval_s": None, "running": running}


def rate(kind: str = "sliding_window", capacity: int = 100) -> Row:
    return {"kind": kind, "capacity": capacity, "interval_s": 10.0, "running": 0}


@pytest.mark.parametrize(
    ("holders", "said"),
    [
        (("a",), "mutex m, held by job a"),
        (("a", "b"), "mutex m, held by jobs a, b"),
        (("a", "b", "c", "d"), "mutex m, held by 4 jobs"),
        ((), "mutex m"),
    ],
)
def test_those_who_have_a_limit_now_are_named(holders: tuple[str, ...], said: str) -> None:
    assert reason(Facts(holders), "mutex m, held by job z") == said


def test_the_limit_of_the_queue_is_named_while_it_is_full() -> None:
    full = "the limit of queue q (5 running of 5)"
    assert reason(Facts(limit=semaphore(5))) == full
    assert reason(Facts(limit=semaphore(4))) is None
    assert reason(Facts(limit=semaphore(5)), "mutex m, held by job z") == full  # nobody has the mutex any more
    assert reason(Facts(("a",), semaphore(5)), "mutex m, held by job z") == "mutex m, held by job a"
    assert reason(Facts(limit=semaphore(5)), state=State.PROCESSING) is None


def test_a_rate_is_full_when_nearly_all_starts_that_it_allows_were_seen() -> None:
    assert reason(Facts(limit=rate(), started=90)) == "the limit of queue q (90 started of 100 in 10 s)"
    assert reason(Facts(limit=rate(), started=89)) is None
    assert reason(Facts(limit=rate(capacity=20_000), started=20_000)) is None


def test_a_fixed_window_counts_from_its_beginning() -> None:
    assert since_when(rate("fixed_window"), NOW) == NOW.replace(second=0)
    assert since_when(rate("token_bucket"), NOW) == datetime(2026, 11, 29, 11, 59, 57, tzinfo=UTC)
