from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract.states import State
from joblog.streams.lane.job import Job
from joblog.streams.lane.waiting import STALE_MIN, Waiting
from msgspec import structs


def job(number: int, version: int = 1) -> Job:
    return Job(f"{number:05}", "q", "t", State.SCHEDULED, version, 0, 0, 0, b"{}", due_ms=number % 7)


def entry(one: Job) -> tuple[Any, ...]:
    return (one.due_ms, one.id, one.version)


def waiting(*jobs: Job) -> tuple[Waiting, dict[str, Job]]:
    made = Waiting(State.SCHEDULED)
    for one in jobs:
        made.add(entry(one))
    return made, {one.id: one for one in jobs}


def test_the_first_keeps_its_place_until_it_is_popped() -> None:
    made, jobs = waiting(job(2), job(1))
    assert made.first(jobs) == made.first(jobs) == (1, "00001", 1)
    assert made.pop() == (1, "00001", 1)
    assert made.first(jobs) == (2, "00002", 1)


def test_nobody_waits() -> None:
    made, jobs = waiting()
    assert made.first(jobs) is None
    assert len(made) == 0
    assert not made


def test_who_left_is_not_given_whatever_became_of_the_job() -> None:
    made, jobs = waiting(job(1), job(2), job(3), job(4))
    del jobs["00001"]
    made.left(jobs)
    jobs["00002"] = structs.replace(jobs["00002"], version=2)
    made.left(jobs)
    jobs["00003"] = structs.replace(jobs["00003"], state=State.ENQUEUED)
    made.left(jobs)
    assert len(made) == 1
    assert made.first(jobs) == (4, "00004", 1)


def test_those_that_left_need_no_more_room_than_those_that_wait() -> None:
    made, jobs = waiting(*map(job, range(2_000)))
    for number in range(2_000):
        del jobs[f"{number:05}"]
        made.left(jobs)
        assert made.entries <= 2 * len(jobs) + STALE_MIN
    assert made.entries <= STALE_MIN


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["add", "first", "take", "leave"]))))
def test_whatever_comes_and_goes_the_first_is_always_given(steps: list[tuple[int, str]]) -> None:
    made, jobs = waiting()
    for version, (number, step) in enumerate(steps, 1):
        one = job(number, version)
        first = min(map(entry, jobs.values()), default=None)
        if step == "add" and one.id not in jobs:
            jobs[one.id] = one
            made.add(entry(one))
        elif step == "first":
            assert made.first(jobs) == first
        elif step == "take":
            taken = made.take(jobs)
            assert (entry(taken) if taken is not None else None) == first
            if taken is not None:
                del jobs[taken.id]
        elif step == "leave" and jobs.pop(one.id, None) is not None:
            made.left(jobs)
        assert len(made) == len(jobs)


@given(st.lists(st.integers(0, 40)), st.lists(st.integers(0, 40)))
def test_it_gives_what_sorting_would_give_whoever_left(numbers: list[int], leaving: list[int]) -> None:
    made, jobs = waiting(*(job(number) for number in dict.fromkeys(numbers)))
    for number in leaving:
        if jobs.pop(f"{number:05}", None) is not None:
            made.left(jobs)
    expected = sorted(map(entry, jobs.values()))
    given = []
    while made.first(jobs) is not None:
        assert len(made) == len(jobs) - len(given)
        given.append(made.pop())
    assert given == expected
