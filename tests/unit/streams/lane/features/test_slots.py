from collections import deque
from datetime import UTC, datetime

from joblog.streams.contract.wire import WorkerAnnounced
from joblog.streams.lane.features.slots import WorkerRegistry

NOW = 1_800_000_000_000


def announced(worker: str = "w1", *queues: str, slots: int = 1, tasks: tuple[str, ...] = ("t",)) -> WorkerAnnounced:
    return WorkerAnnounced(
        worker=worker,
        partition=3,
        queues=queues,
        all_queues=queues,
        slots=slots,
        all_slots=slots,
        tasks=tasks,
        started_at=datetime(2027, 1, 15, tzinfo=UTC),
    )


def test_a_worker_serves_the_queues_it_announced() -> None:
    workers = WorkerRegistry()
    _, changed = workers.announce(announced("w1", "a", "b"), NOW)
    assert changed
    assert (workers.serving("a"), workers.serving("b")) == (deque(["w1"]), deque(["w1"]))
    assert workers.serving("c") == deque()
    assert len(workers) == 1


def test_a_renewal_changes_nothing_but_the_time() -> None:
    workers = WorkerRegistry()
    workers.announce(announced("w1", "a"), NOW)
    worker, changed = workers.announce(announced("w1", "a"), NOW + 5)
    assert not changed
    assert worker.seen_ms == NOW + 5
    assert workers.serving("a") == deque(["w1"])


def test_a_worker_that_announces_other_queues_leaves_the_old_ones() -> None:
    workers = WorkerRegistry()
    workers.announce(announced("w1", "a", "b"), NOW)
    _, changed = workers.announce(announced("w1", "b", "c"), NOW)
    assert changed
    assert [workers.serving(queue) for queue in "abc"] == [deque(), deque(["w1"]), deque(["w1"])]


def test_a_queue_that_a_worker_names_twice_is_served_once_and_left_for_good() -> None:
    workers = WorkerRegistry()
    workers.announce(announced("w1", "a", "a"), NOW)
    assert workers.serving("a") == deque(["w1"])
    workers.remove("w1")
    assert workers.serving("a") == deque()


def test_workers_of_a_queue_keep_the_order_in_which_they_came() -> None:
    workers = WorkerRegistry()
    for name in ("w1", "w2", "w3"):
        workers.announce(announced(name, "a"), NOW)
    workers.announce(announced("w1", "a", slots=2), NOW)
    assert workers.serving("a") == deque(["w1", "w2", "w3"])


def test_room_is_what_is_offered_less_what_is_held() -> None:
    workers = WorkerRegistry()
    worker, _ = workers.announce(announced("w1", "a", slots=2), NOW)
    worker.held["job"] = 2
    assert worker.room == 1
    workers.announce(announced("w1", "a", slots=0), NOW)
    assert worker.room == -1
    workers.release("w1", "job")
    assert worker.room == 0


def test_what_nobody_holds_is_released_in_vain() -> None:
    workers = WorkerRegistry()
    workers.announce(announced("w1", "a"), NOW)
    workers.release("w1", "job")
    workers.release("absent", "job")
    workers.release(None, "job")
    assert dict(workers)["w1"].room == 1


def test_workers_may_leave_while_they_are_looked_at() -> None:
    workers = WorkerRegistry()
    for name in ("w1", "w2"):
        workers.announce(announced(name, "a"), NOW)
    assert [workers.remove(name) is worker for name, worker in workers] == [True, True]
    assert len(workers) == 0
    assert workers.remove("w1") is None
