from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract.states import State
from joblog.streams.lane.job import Job
from joblog.streams.lane.queue import ReadyQueue
from msgspec import structs

ALL = {"t", "u"}


def ready(job_id: str, *, priority: int = 0, created_ms: int = 0, task: str = "t") -> Job:
    return Job(job_id, "q", task, State.ENQUEUED, 1, 0, priority, created_ms, b"{}")


def filled(jobs: Iterable[Job]) -> tuple[ReadyQueue, dict[str, Job]]:
    queue, known = ReadyQueue(), {}
    for job in jobs:
        queue.add(job)
        known[job.id] = job
    return queue, known


def taken(queue: ReadyQueue, known: dict[str, Job], tasks: set[str] = ALL) -> list[str]:
    """The ids of all that the queue gives; each is taken out of `known`, as one that started would be."""
    order = []
    while (job := queue.pop(tasks, known)) is not None:
        order.append(job.id)
    return order


def test_the_highest_priority_comes_first_then_the_oldest_then_the_id() -> None:
    queue, known = filled(
        [
            ready("d", created_ms=2),
            ready("c", created_ms=1),
            ready("b", created_ms=1),
            ready("a", priority=-1),
            ready("e", priority=1),
        ]
    )
    assert taken(queue, known) == ["e", "b", "c", "d", "a"]


def test_an_empty_queue_gives_nothing_and_is_false() -> None:
    queue = ReadyQueue()
    assert not queue
    assert len(queue) == 0
    assert queue.pop(ALL, {}) is None


def test_only_jobs_of_known_tasks_are_given_and_the_others_stay() -> None:
    queue, known = filled([ready("a", task="u", priority=9), ready("b")])
    assert taken(queue, known, {"t"}) == ["b"]
    assert queue
    assert taken(queue, known, set()) == []
    assert taken(queue, known, {"u"}) == ["a"]
    assert not queue


def test_the_best_of_several_tasks_is_given() -> None:
    queue, known = filled([ready("a", created_ms=3), ready("b", created_ms=1, task="u"), ready("c", created_ms=2)])
    assert taken(queue, known) == ["b", "c", "a"]


def test_what_has_moved_on_is_not_given() -> None:
    queue, known = filled([ready("gone"), ready("running"), ready("later"), ready("here")])
    del known["gone"]
    known["running"] = structs.replace(known["running"], state=State.PROCESSING, version=2)
    known["later"] = structs.replace(known["later"], state=State.SCHEDULED)
    assert taken(queue, known) == ["here"]
    assert not queue


def test_a_job_that_came_back_is_given_once() -> None:
    queue, known = filled([ready("a")])
    known["a"] = structs.replace(known["a"], version=3)
    queue.add(known["a"])
    queue.left("t", known)
    assert len(queue) == 1
    assert taken(queue, known) == ["a"]


def test_a_queue_nobody_serves_forgets_those_that_left() -> None:
    queue, known = filled(ready(str(n)) for n in range(1000))
    while known:
        known.popitem()
        queue.left("t", known)
        assert len(queue) == len(known)
    assert not queue


def test_what_left_a_task_that_nobody_waits_for_is_not_missed() -> None:
    queue, known = filled([ready("a")])
    queue.left("u", known)
    assert taken(queue, known) == ["a"]


JOBS = st.lists(
    st.builds(
        ready,
        st.uuids().map(str),
        priority=st.integers(-2, 2),
        created_ms=st.integers(0, 3),
        task=st.sampled_from(["t", "u", "v"]),
    ),
    unique_by=lambda job: job.id,
)


@given(JOBS, st.sets(st.sampled_from(["t", "u", "v"])))
def test_the_queue_gives_what_sorting_would_give(jobs: list[Job], tasks: set[str]) -> None:
    queue, known = filled(jobs)
    expected = sorted(
        (job for job in jobs if job.task in tasks), key=lambda job: (-job.priority, job.created_ms, job.id)
    )
    assert taken(queue, known, tasks) == [job.id for job in expected]
    assert len(queue) == len(jobs) - len(expected)
