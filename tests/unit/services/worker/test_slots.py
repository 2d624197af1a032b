import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.tasks.task import task
from joblog.services.worker.execution.loop import LoopExecutor
from joblog.services.worker.execution.run import KnownTask, Leases, Run, RunKey
from joblog.services.worker.execution.threads import ThreadExecutor
from joblog.services.worker.slots import Slots
from joblog.streams.contract.wire import RunJob
from msgspec import Raw

from tests.support.assigned import record_of

QUEUES = ("first", "second", "third")


@task("sync")
def sync() -> None: ...


@task("async")
async def asynchronous() -> None: ...


SYNC, ASYNC = KnownTask.of(sync), KnownTask.of(asynchronous)


def run_of(number: int, queue: str = "first", known: KnownTask = SYNC, arrived_at: float = 0.0, lane: int = 0) -> Run:
    held: dict[RunKey, Run] = {}
    job = RunJob(
        job_id=f"job {number}",
        lease=1,
        attempt=1,
        lane=lane,
        task="t",
        queue=queue,
        spec=Raw(b"{}"),
        ready_ms=0,
    )
    return Run(job, known, "w", held, arrived_at, Leases((job.lane,), inf, 0.0), record_of(None))


class Recorder:
    """An executor whose runs end when the test says so."""

    def __init__(self) -> None:
        self.started: list[Run] = []

    def start(self, run: Run) -> None:
        self.started.append(run)


def slots_of(count: int) -> tuple[Slots, Recorder]:
    slots, recorder = Slots(count, QUEUES), Recorder()
    slots.connect(recorder, recorder, pytest.fail)
    return slots, recorder


def start_all(slots: Slots) -> None:
    """What executors do: each started run starts the next one."""
    for _ in range(slots.count):
        slots.start_next()


def test_no_more_runs_start_than_there_are_slots() -> None:
    slots, recorder = slots_of(2)
    runs = [run_of(n) for n in range(3)]
    slots.add(runs)
    start_all(slots)
    assert recorder.started == runs[:2] == slots.running
    assert slots.waiting == runs[2:]


def test_a_run_that_came_back_hands_its_slot_to_the_next_one() -> None:
    slots, recorder = slots_of(1)
    first, second = run_of(1), run_of(2)
    slots.add([first, second])
    assert slots.following(first) is second
    assert slots.running == [second]
    assert slots.following(second) is None
    slots.add([third := run_of(3)])
    assert recorder.started == [first, third]


def test_a_slot_is_handed_to_another_executor_by_it() -> None:
    slots, recorder = slots_of(1)
    first, second = run_of(1), run_of(2, known=ASYNC)
    slots.add([first, second])
    assert slots.following(first) is None
    assert recorder.started == [first, second]


def test_waiting_runs_start_by_queue_and_then_by_arrival() -> None:
    slots, _ = slots_of(1)
    blocker = run_of(0)
    slots.add([blocker])
    waiting = [run_of(1, "third"), run_of(2, "second"), run_of(3, "second"), run_of(4, "first")]
    slots.add(waiting)
    order, run = [], slots.following(blocker)
    while run is not None:
        order.append(run)
        run = slots.following(run)
    assert order == [waiting[3], waiting[1], waiting[2], waiting[0]]


def test_a_run_that_was_withdrawn_never_starts() -> None:
    slots, recorder = slots_of(1)
    running, waiting = run_of(1), run_of(2)
    slots.add([running, waiting])
    assert slots.withdraw(waiting)
    assert not slots.withdraw(waiting)
    assert not slots.withdraw(running)
    assert slots.following(running) is None
    assert recorder.started == [running]


def test_runs_are_withdrawn_by_their_age() -> None:
    slots, _ = slots_of(1)
    slots.add([run_of(0)])
    waiting = [run_of(n, QUEUES[n % 3], arrived_at=float(n)) for n in range(1, 6)]
    slots.add(waiting)
    assert slots.withdraw_older(3.0) == waiting[:2]
    assert slots.waiting == waiting[2:]
    assert slots.withdraw_older(inf) == waiting[2:]


def test_starts_are_counted_by_lane() -> None:
    slots, _ = slots_of(2)
    slots.add([run_of(1, lane=1), run_of(2, lane=2), run_of(3, lane=2), gone := run_of(4, lane=2)])
    start_all(slots)
    slots.withdraw(gone)
    assert slots.starts == Counter({1: 1, 2: 1})


STEPS = st.lists(st.sampled_from(["add", "end", "withdraw", "start"]), max_size=60)


@given(st.integers(1, 4), STEPS, st.randoms())
def test_whatever_happens_slots_are_never_overbooked_nor_idle_while_runs_wait(
    count: int, steps: list[str], chance: random.Random
) -> None:
    slots, recorder = slots_of(count)
    added: list[Run] = []
    withdrawn: list[Run] = []
    handed: list[Run] = []
    for number, step in enumerate(steps):
        if step == "add":
            added.append(run_of(number, chance.choice(QUEUES)))
            slots.add([added[-1]])
        elif step == "end" and slots.running:
            following = slots.following(chance.choice(slots.running))
            handed.extend([following] if following else [])
        elif step == "withdraw" and slots.waiting:
            withdrawn.append(chance.choice(slots.waiting))
            assert slots.withdraw(withdrawn[-1])
        start_all(slots)
        assert len(slots.running) <= count
        assert len(slots.running) == count or not slots.waiting
    started = recorder.started + handed
    assert len(set(started)) == len(started)
    assert {*started, *withdrawn, *slots.waiting} == set(added)


@contextmanager
def executing(count: int, perform: Callable[[Run], None]) -> Iterator[Slots]:
    """Slots with real threads and a real event loop."""

    async def perform_async(run: Run) -> None:
        await asyncio.sleep(0)
        perform(run)

    slots = Slots(count, QUEUES)
    threads, loop = ThreadExecutor(slots, perform), LoopExecutor(slots, perform_async)
    slots.connect(threads, loop, pytest.fail)
    try:
        yield slots
    finally:
        loop.close()
        threads.close()


@pytest.mark.parametrize("count", [1, 3, 20])
def test_every_run_is_performed_once_and_never_more_at_once_than_slots(count: int) -> None:
    performed: Counter[str] = Counter()
    too_many = threading.Event()
    done = threading.Semaphore(0)
    busy: dict[Run, None] = {}

    def perform(run: Run) -> None:
        busy[run] = None
        if len(busy) > count:
            too_many.set()
        performed[run.job.job_id] += 1
        del busy[run]
        done.release()

    runs = [run_of(n, QUEUES[n % 3], ASYNC if n % 7 == 0 else SYNC) for n in range(5_000)]
    with executing(count, perform) as slots:
        for at in range(0, len(runs), 50):
            slots.add(runs[at : at + 50])
        for _ in runs:
            assert done.acquire(timeout=20)
        assert not too_many.is_set()
        assert performed == Counter(run.job.job_id for run in runs)


def test_runs_that_block_get_all_slots_at_once() -> None:
    all_here = threading.Barrier(9)

    def perform(run: Run) -> None:
        all_here.wait(10)

    with executing(8, perform) as slots:
        slots.add(run_of(n) for n in range(8))
        all_here.wait(10)


def test_threads_are_made_only_as_they_are_needed() -> None:
    done = threading.Semaphore(0)
    before = threading.active_count()

    def perform(run: Run) -> None:
        done.release()

    with executing(500, perform) as slots:
        for number in range(50):
            slots.add([run_of(number)])
            assert done.acquire(timeout=10)
        assert threading.active_count() - before <= 3


def test_runs_withdrawn_by_one_thread_while_others_start_them_are_never_both() -> None:
    performed: dict[str, None] = {}
    done = threading.Semaphore(0)

    def perform(run: Run) -> None:
        performed[run.job.job_id] = None
        done.release()

    with executing(4, perform) as slots:
        runs = [run_of(n) for n in range(5_000)]
        withdrawn = []
        for run in runs:
            slots.add([run])
            withdrawn.extend(slots.withdraw_older(inf))
        for _ in range(len(runs) - len(withdrawn)):
            assert done.acquire(timeout=10)
        gone = {run.job.job_id for run in withdrawn}
        assert gone.isdisjoint(performed)
        assert len(gone) + len(performed) == len(runs)


def allow_threads(monkeypatch: pytest.MonkeyPatch, most: Callable[[], int]) -> list[str]:
    """Let no more threads start than this; tells the names of those that did."""
    started: list[str] = []
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if len(started) >= most():
            raise RuntimeError("can't start new thread")
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return started


@pytest.mark.parametrize("threads", [1, 3])
def test_runs_that_get_no_thread_wait_for_one_that_is_done(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    performed: list[Run] = []
    done = threading.Semaphore(0)

    def perform(run: Run) -> None:
        performed.append(run)
        done.release()

    allow_threads(monkeypatch, lambda: threads)
    runs = [run_of(n) for n in range(200)]
    with executing(6, perform) as slots:
        slots.add(runs)
        for _ in runs:
            assert done.acquire(timeout=10)
    assert sorted(runs.index(run) for run in performed) == list(range(200))
    assert threads > 1 or performed == runs  # none is left behind while others pass it by


def test_threads_are_made_once_there_may_be_more_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, here = threading.Event(), threading.Semaphore(0)

    def perform(run: Run) -> None:
        here.release()
        gate.wait(10)

    most = 1
    names = allow_threads(monkeypatch, lambda: most)
    with executing(3, perform) as slots:
        slots.add([run_of(0), run_of(1)])
        assert here.acquire(timeout=10)
        assert names == ["slot-0"]
        most = 9
        slots.add([run_of(2)])  # its thread takes the run that came before it
        assert here.acquire(timeout=10)
        gate.set()
        assert here.acquire(timeout=10)
        assert len(names) == 2


def test_a_worker_that_can_have_no_thread_is_told_before_it_takes_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def perform(run: Run) -> None: ...

    slots = Slots(1, QUEUES)
    allow_threads(monkeypatch, lambda: 0)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        ThreadExecutor(slots, perform)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        LoopExecutor(slots, asyncio.sleep).open()  # type: ignore[arg-type]


def test_a_run_that_breaks_its_thread_leaves_slot_and_thread_to_others() -> None:
    done = threading.Semaphore(0)
    threads: set[int] = set()

    def perform(run: Run) -> None:
        threads.add(threading.get_ident())
        done.release()
        raise SystemExit(3)

    with executing(1, perform) as slots:
        for number in range(3):
            slots.add([run_of(number)])
            assert done.acquire(timeout=10)
        assert len(threads) == 1
