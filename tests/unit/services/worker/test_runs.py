"""Assignments in, reports out: everything between them, without Kafka."""

import asyncio
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joblog.services.tasks.context import CancellationToken, Cause, JobCancelled, JobContext, current_job
from joblog.services.tasks.task import TaskRegistry, task
from joblog.services.worker.assignments import Unreadable, read_assignment
from joblog.services.worker.execution.loop import LoopExecutor
from joblog.services.worker.execution.performing import Performer
from joblog.services.worker.execution.processes import ProcessRuns
from joblog.services.worker.execution.results import Failed, Succeeded, describe, success_of
from joblog.services.worker.execution.run import Leases, Run, clock, known_tasks
from joblog.services.worker.execution.threads import ThreadExecutor
from joblog.services.worker.filters import Ended, WorkerFilter
from joblog.services.worker.intake import Intake
from joblog.services.worker.options import WorkerOptions
from joblog.services.worker.orders import Orders
from joblog.services.worker.report_sender import ReportSender
from joblog.services.worker.reports import Endings, Reports, RunMeters
from joblog.services.worker.served_lanes import ServedLanes
from joblog.services.worker.slots import Slots
from joblog.services.worker.worker import Worker
from joblog.streams.contract.codec import encode
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.retry import Curve, Retry, RetryPolicy
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import (
    AnyReport,
    CancelJob,
    RunFailed,
    RunJob,
    RunProgressed,
    RunReleased,
    RunSucceeded,
)
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from msgspec import Raw

from tests.support.assigned import WORKER, arrived, record_of

LANE = 1
TIMEOUT_S = 10
LEASE_S = 600.0
JOB_ID = "018f0000-0000-8001-8000-{:012x}"


@task("add")
def add(a: int, b: int = 1) -> int:
    return a + b


@task("add_async")
async def add_async(a: int, b: int = 1) -> int:
    await asyncio.sleep(0)
    return a + b


@task("who")
def who(context: JobContext) -> list[Any]:
    assert current_job() is context
    return [context.job_id, context.attempt, context.worker, dict(context.parameters)]


@task("who_async")
async def who_async(context: JobContext) -> list[Any]:
    await asyncio.sleep(0)
    return who(context)


@task("fail", retry=RetryPolicy(attempts=2, curve=Curve.FIXED, delays_s=(1.0,)))
def fail() -> None:
    raise KeyError("k")


@task("leave")
def leave() -> None:
    sys.exit(3)


@task("huge")
def huge() -> str:
    return "x" * 300_000


@task("obey", timeout=60)
def obey(token: CancellationToken) -> None:
    token.wait(TIMEOUT_S)
    token.raise_if_cancelled()


@task("obey_async")
async def obey_async() -> None:
    await asyncio.sleep(TIMEOUT_S)


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that knows nothing of async functions."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@task("unawaited")
@plainly
async def unawaited() -> None: ...


@task("unawaited_async")
async def unawaited_async() -> Any:
    return asyncio.sleep(0)


TASKS = TaskRegistry.of(
    add,
    add_async,
    who,
    who_async,
    fail,
    leave,
    huge,
    obey,
    obey_async,
    unawaited,
    unawaited_async,
)


class RecordingSender(ReportSender):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.lanes: list[int] = []
        self.parked: list[tuple[bytes | None, dict[str, str]]] = []

    def send(self, lane: int, key: str, value: bytes) -> None:
        assert key == msgspec.json.decode(value)["job_id"]
        self.lanes.append(lane)
        self.sent.append(value)

    def send_in_order(self, lane: int, key: str, *values: bytes) -> None:
        for value in values:
            self.send(lane, key, value)

    def park(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        assert key == WORKER.encode()
        self.parked.append((value, {name: bytes(text or b"").decode() for name, text in headers}))


class Bench:
    def __init__(self, filters: tuple[WorkerFilter, ...] = (), slots: int = 2, tasks: TaskRegistry = TASKS) -> None:
        self.sender = RecordingSender()
        self.meters = Meters()
        reports, meters = Reports(self.sender), RunMeters(self.meters)
        self.run_meters = meters
        self.endings = Endings(reports, meters)
        self.slots = Slots(slots, ("default",))
        performer = Performer(self.endings, meters, ProcessRuns(1_000), filters, 262_144)
        self.threads = ThreadExecutor(self.slots, performer.perform)
        self.loop = LoopExecutor(self.slots, performer.perform_async)
        self.slots.connect(self.threads, self.loop, self.endings.fault)
        self.leases = Leases((LANE,), LEASE_S, clock())
        self.intake = Intake(
            worker="w:1",
            lanes=LANE + 1,
            queues=["default"],
            known=known_tasks(tasks),
            slots=self.slots,
            endings=self.endings,
            reports=reports,
            meters=meters,
            leases=self.leases,
            orders=Orders(),
            served=ServedLanes(WorkerOptions(queues=("default",), lanes=LANE + 1)),
        )
        self._jobs = 0

    def close(self) -> None:
        self.loop.close()
        self.threads.close()

    def job(self, name: str, *args: Any, queue: str = "default", **spec: Any) -> RunJob:
        self._jobs += 1
        return RunJob(
            job_id=JOB_ID.format(self._jobs),
            lease=self._jobs,
            attempt=3,
            lane=LANE,
            task=name,
            queue=queue,
            spec=Raw(msgspec.json.encode({"args": args, **spec})),
            parameters=Raw(b'{"b":2}'),
            ready_ms=time.time_ns() // 1_000_000 - 500,
        )

    def assign(self, name: str, *args: Any, **spec: Any) -> RunJob:
        job = self.job(name, *args, **spec)
        self.intake.accept([arrived(job)])
        return job

    @property
    def reports(self) -> list[AnyReport]:
        return [msgspec.json.decode(value, type=AnyReport) for value in self.sender.sent]

    def report(self, count: int = 1) -> Any:
        """The last of so many reports, once they are there."""
        self.until(lambda: len(self.sender.sent) >= count)
        assert len(self.sender.sent) == count
        return self.reports[-1]

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.001)

    def counted(self, name: str, **labels: str) -> float:
        self.run_meters.flush()
        labels = {"queue": "default", **labels}
        return self.meters.registry.get_sample_value(name, labels) or 0


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_a_run_is_reported_with_its_result(bench: Bench, name: str) -> None:
    before = time.time_ns() // 1_000_000
    job = bench.assign(name, 1, kwargs={"b": 2})
    report = bench.report()
    assert isinstance(report, RunSucceeded)
    assert (report.job_id, report.lease, report.worker) == (job.job_id, job.lease, "w:1")
    assert (bytes(report.result), report.result_omitted) == (b"3", None)
    assert before <= report.started_ms <= time.time_ns() // 1_000_000
    assert 0 <= report.duration_ms < TIMEOUT_S * 1_000
    assert bench.sender.lanes == [LANE]


@pytest.mark.parametrize("name", ["who", "who_async"])
def test_a_task_knows_the_job_it_runs_for(bench: Bench, name: str) -> None:
    job = bench.assign(name, parameters={"a": 1, "b": 1})
    assert msgspec.json.decode(bench.report().result) == [job.job_id, 3, "w:1", {"a": 1, "b": 2}]


def test_an_exception_is_reported_with_the_policy_of_the_task(bench: Bench) -> None:
    bench.assign("fail")
    report = bench.report()
    assert isinstance(report, RunFailed)
    assert (report.exception.type, report.exception.message) == ("KeyError", "'k'")
    assert report.exception.types == ("KeyError", "LookupError", "Exception", "BaseException")
    assert "in fail" in report.exception.details
    assert "worker_performing" not in report.exception.details
    assert report.retry == Retry(attempts=2, curve=Curve.FIXED, delays_s=(1.0,))


def test_a_task_that_wants_to_leave_the_process_fails(bench: Bench) -> None:
    bench.assign("leave")
    assert bench.report().exception.type == "SystemExit"
    bench.assign("add", 1)
    assert isinstance(bench.report(2), RunSucceeded)


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_arguments_that_do_not_fit_fail_the_run(bench: Bench, name: str) -> None:
    bench.assign(name, "many")
    exception = bench.report().exception
    assert exception.type == "joblog.services.tasks.task.ArgumentsError"
    assert exception.message.startswith(f"arguments do not fit task {name}: a: Input should be a valid integer")
    assert exception.details == ""


def test_a_result_that_is_too_large_is_left_out_and_the_run_succeeds(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.assign("huge")
    report = bench.report()
    assert isinstance(report, RunSucceeded)
    assert report.result_omitted == "the result has 300002 bytes of JSON, more than the 262144 allowed"
    bench.until(lambda: "run.result_omitted" in caplog.messages)


@pytest.mark.parametrize("name", ["unawaited", "unawaited_async"])
def test_a_task_that_returns_what_nobody_awaits_fails(bench: Bench, name: str) -> None:
    bench.assign(name)
    report = bench.report()
    assert isinstance(report, RunFailed)
    assert report.exception.type == "joblog.services.worker.execution.results.NeverAwaited"


@pytest.mark.parametrize("name", ["obey", "obey_async"])
def test_a_cancelled_run_stops_and_is_not_reported(bench: Bench, name: str) -> None:
    job = bench.assign(name)
    bench.until(lambda: bench.counted("joblog_jobs_started_total", task=name))
    bench.intake.accept([arrived(CancelJob(job_id=job.job_id, lease=job.lease, reason="deleted"))])
    bench.until(lambda: not bench.slots.running)
    assert bench.reports == []
    assert bench.intake.held == {}
    assert bench.counted("joblog_jobs_finished_total", task=name, outcome="cancelled") == 1


def test_a_run_cancelled_in_the_batch_it_came_in_is_not_reported(bench: Bench) -> None:
    cancel = CancelJob(job_id=JOB_ID.format(1), lease=1, reason="deleted")
    job = RunJob(
        job_id=JOB_ID.format(1),
        lease=1,
        attempt=1,
        lane=LANE,
        task="obey",
        queue="default",
        spec=Raw(b"{}"),
        ready_ms=0,
    )
    bench.intake.accept([arrived(job), arrived(cancel)])
    bench.until(lambda: not bench.slots.running)
    assert (bench.reports, bench.intake.held) == ([], {})


def test_a_job_cancelled_while_it_waits_never_starts(bench: Bench) -> None:
    blocking = [bench.assign("obey") for _ in range(2)]
    waiting = bench.assign("add", 1)
    for job in (waiting, *blocking):
        bench.intake.accept([arrived(CancelJob(job_id=job.job_id, lease=job.lease, reason="deleted"))])
    bench.until(lambda: not bench.slots.running)
    assert bench.counted("joblog_jobs_started_total", task="add") == 0
    assert bench.reports == []


def test_a_cancellation_under_another_lease_is_not_ours(bench: Bench) -> None:
    job = bench.assign("obey")
    bench.intake.accept([arrived(CancelJob(job_id=job.job_id, lease=job.lease + 1, reason="deleted"))])
    assert not bench.intake.held[job.job_id, job.lease].token.is_cancelled
    bench.intake.give_up("over")


def test_an_assignment_that_comes_twice_runs_once(bench: Bench) -> None:
    job = bench.assign("obey")
    bench.intake.accept([arrived(job)])
    assert len(bench.intake.held) == len(bench.slots.running) + len(bench.slots.waiting) == 1
    bench.intake.give_up("over")


def test_a_run_of_a_lane_in_which_this_worker_has_no_lease_goes_back(bench: Bench) -> None:
    job = msgspec.structs.replace(bench.job("add", 1), lane=LANE + 1)
    bench.intake.accept([arrived(job)])
    report = bench.report()
    assert isinstance(report, RunReleased)
    assert report.reason == f"this worker has no lease from lane {LANE + 1}"


@pytest.mark.parametrize(
    ("name", "queue", "why"), [("nobody", "default", "knows no task nobody"), ("add", "other", "the queue other")]
)
def test_what_this_worker_cannot_run_goes_back(bench: Bench, name: str, queue: str, why: str) -> None:
    bench.assign(name, queue=queue)
    report = bench.report()
    assert isinstance(report, RunReleased)
    assert why in report.reason
    assert not report.started


def test_a_timed_out_run_fails_at_once_and_its_own_outcome_is_dropped(bench: Bench) -> None:
    bench.assign("obey", timeout_s=0.05)
    bench.until(lambda: any(run.deadline < time.monotonic() for run in bench.slots.running))
    (run,) = bench.slots.running
    bench.endings.time_out(run)
    report = bench.report()
    assert report.exception.type == "joblog.streams.errors.JobTimeout"
    assert report.exception.message == "the job ran longer than 0.05 s"
    assert "token.wait" in report.exception.details
    bench.until(lambda: not bench.slots.running)
    assert len(bench.reports) == 1
    assert run.token.reason == "timeout"


def test_a_jobs_timeout_wins_over_that_of_its_task(bench: Bench) -> None:
    bench.assign("obey")
    bench.assign("obey", timeout_s=5)
    bench.until(lambda: sorted(run.timeout_s for run in bench.slots.running) == [5.0, 60.0])
    bench.intake.give_up("over")


@pytest.mark.parametrize("name", ["obey", "obey_async"])
def test_a_run_stopped_on_shutdown_goes_back_with_its_attempt_unspent(bench: Bench, name: str) -> None:
    bench.assign(name)
    bench.until(lambda: bench.counted("joblog_jobs_started_total", task=name))
    for run in bench.slots.running:
        run.stop("shutdown")
    report = bench.report()
    assert isinstance(report, RunReleased)
    assert report.started


def test_a_closed_intake_gives_back_what_waits_and_what_comes(bench: Bench) -> None:
    running = [bench.assign("obey") for _ in range(2)]
    waiting = bench.assign("add", 1)
    bench.intake.close("the worker stops")
    late = bench.assign("add", 1)
    assert [(report.job_id, type(report)) for report in bench.reports] == [  # type: ignore[union-attr]
        (waiting.job_id, RunReleased),
        (late.job_id, RunReleased),
    ]
    assert list(bench.intake.held) == [(job.job_id, job.lease) for job in running]
    bench.intake.give_up("over")


def test_giving_up_stops_everything_without_a_word(bench: Bench) -> None:
    for name in ("obey", "obey_async", "add"):
        bench.assign(name, *([1] if name == "add" else []))
    bench.intake.give_up("lease lost")
    bench.until(lambda: not bench.slots.running)
    assert (bench.reports, bench.intake.held) == ([], {})


class Noting:
    """A filter that notes, and raises what it is told to."""

    def __init__(self, name: str, notes: list[str], before: str = "", after: str = "") -> None:
        self._name, self._notes, self._before, self._after = name, notes, before, after

    def before_run(self, context: JobContext) -> None:
        self._notes.append(f"{self._name} before {context.task}")
        if self._before:
            raise ValueError(self._before)

    def after_run(self, context: JobContext, outcome: Ended) -> None:
        kind = {Succeeded: "success", Failed: "failure"}[type(outcome)]
        self._notes.append(f"{self._name} after {kind} of {context.task}")
        if self._after == "exit":
            raise SystemExit(3)
        if self._after:
            raise ValueError(self._after)


def filtered(name: str, *filters: WorkerFilter, tasks: TaskRegistry = TASKS) -> Any:
    bench = Bench(filters, tasks=tasks)
    bench.assign(name, *((1,) if tasks is TASKS else ()))
    try:
        return bench.report()
    finally:
        bench.close()


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_filters_are_called_around_the_run_the_first_one_outermost(name: str) -> None:
    notes: list[str] = []
    assert isinstance(filtered(name, Noting("a", notes), Noting("b", notes)), RunSucceeded)
    assert notes == [
        f"a before {name}",
        f"b before {name}",
        f"b after success of {name}",
        f"a after success of {name}",
    ]


OWN: list[str] = []


@task("own_filters", filters=[Noting("task's", OWN)])
def own_filters() -> None:
    OWN.append("runs")


def test_the_filters_of_a_task_are_nearest_to_its_runs() -> None:
    OWN.clear()
    filtered("own_filters", Noting("worker's", OWN), tasks=MORE_TASKS)
    assert [note.removesuffix(" own_filters").removesuffix(" of") for note in OWN] == [
        "worker's before",
        "task's before",
        "runs",
        "task's after success",
        "worker's after success",
    ]


@task("small", result_bytes_max=5)
def small(text: str) -> str:
    return text


def test_a_task_may_allow_a_shorter_result_only(more: Bench) -> None:
    bench = more
    bench.assign("small", "abc")
    assert bench.report().result == Raw(b'"abc"')
    bench.assign("small", "abcd")
    assert bench.report(2).result_omitted == "the result has 6 bytes of JSON, more than the 5 allowed"


@task("apart", isolation="process")
def apart() -> None: ...


@pytest.mark.parametrize(
    ("cause", "raised", "kind"),
    [
        (Cause.SHUTDOWN, JobCancelled("shutdown"), RunReleased),
        (Cause.SHUTDOWN, asyncio.CancelledError(), RunReleased),
        (Cause.SHUTDOWN, ValueError("no"), RunFailed),
        (None, JobCancelled("of its own accord"), RunFailed),
    ],
)
def test_a_process_that_ends_as_the_stop_of_its_worker_asks_gives_its_job_back(
    more: Bench, monkeypatch: pytest.MonkeyPatch, cause: Cause | None, raised: BaseException, kind: type
) -> None:
    def perform(_self: ProcessRuns, run: Run, _timeout_s: float | None) -> Failed:
        if cause is not None:
            run.stop(cause)
        return Failed(describe(raised))

    monkeypatch.setattr(ProcessRuns, "perform", perform)
    more.assign("apart")
    assert type(more.report()) is kind


@task("talk")
def talk(job: JobContext, fails: bool) -> None:
    job.log("a line")
    job.progress(0.5, "half")
    if fails:
        raise ValueError("no")


MORE_TASKS = TaskRegistry.of(own_filters, small, apart, talk)


@pytest.fixture
def more() -> Iterator[Bench]:
    made = Bench(tasks=MORE_TASKS)
    yield made
    made.close()


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_run_said_last_is_reported_before_its_end(more: Bench, fails: bool) -> None:
    bench = more
    bench.assign("talk", fails)
    end = bench.report(2)
    said = bench.reports[0]
    assert isinstance(said, RunProgressed)
    assert (said.progress, said.text, said.lines) == (0.5, "half", ("a line",))
    assert (said.lease, said.worker) == (end.lease, end.worker)
    assert isinstance(end, RunFailed if fails else RunSucceeded)


def test_the_end_of_a_run_waits_until_the_loop_has_sent_what_it_said(more: Bench) -> None:
    """What came behind its end would be of no run any more, and the lines would be lost."""

    class SlowSender(RecordingSender):
        def send(self, lane: int, key: str, value: bytes) -> None:
            if isinstance(msgspec.json.decode(value, type=AnyReport), RunProgressed):
                taken.set()
                ended.wait(0.1)
            super().send(lane, key, value)

    taken, ended = threading.Event(), threading.Event()
    sender = SlowSender()
    reports, job = Reports(sender), more.job("talk", False)
    known = known_tasks(MORE_TASKS)["talk"]
    run = Run(job, known, WORKER, {}, clock(), more.leases, record_of(None))
    run.logged("a line")
    assert run.told is not None
    loop = threading.Thread(target=run.told.send_by, args=(functools.partial(reports.progressed, run), clock()))
    loop.start()
    assert taken.wait(TIMEOUT_S)
    reports.ended(run, success_of(None, 0))
    ended.set()
    loop.join()
    assert [type(msgspec.json.decode(one, type=AnyReport)) for one in sender.sent] == [RunProgressed, RunSucceeded]


def test_a_filter_that_raises_before_the_run_fails_it_and_the_task_is_not_called() -> None:
    notes: list[str] = []
    report = filtered("add", Noting("a", notes, before="no"), Noting("b", notes))
    assert (report.exception.type, report.exception.message) == ("ValueError", "no")
    assert notes == ["a before add", "b after failure of add", "a after failure of add"]


def test_a_filter_that_raises_after_the_run_fails_it() -> None:
    notes: list[str] = []
    report = filtered("add", Noting("a", notes), Noting("b", notes, after="never mind"))
    assert report.exception.message == "never mind"
    assert notes[-2:] == ["b after success of add", "a after failure of add"]


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_a_filter_that_wants_to_leave_the_process_fails_the_run(name: str) -> None:
    bench = Bench((Noting("a", [], after="exit"),), slots=1)
    for number in range(2):
        bench.assign(name, number)
        assert bench.report(number + 1).exception.type == "SystemExit"
    bench.close()


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_a_run_whose_lease_is_over_is_not_started_but_released(bench: Bench, name: str) -> None:
    bench.leases.renewed_at[LANE] -= LEASE_S + 1
    bench.assign(name, 1)
    report = bench.report()
    assert (type(report), report.started) == (RunReleased, False)
    bench.until(lambda: not bench.slots.running)
    bench.run_meters.flush()
    assert (
        bench.meters.registry.get_sample_value("joblog_jobs_started_total", {"queue": "default", "task": name})
        is None
    )


def break_method(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, times: int = 1) -> None:
    """Let a method raise what nobody foresaw, so many times."""
    before = getattr(owner, name)
    left = iter(range(times))

    def broken(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is not None:
            raise MemoryError("no room")
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, broken)


def is_parked(bench: Bench, job: RunJob) -> None:
    [(value, headers)] = bench.sender.parked
    assert value == encode(job)
    assert (headers["joblog-reason-code"], headers["joblog-role"]) == ("internal_error", "worker")
    assert (headers["joblog-topic"], headers["joblog-partition"], headers["joblog-offset"]) == (
        "assignments",
        "3",
        "7",
    )
    assert headers["joblog-reason"].startswith("Traceback")
    assert headers["joblog-reason"].rstrip().endswith("MemoryError: no room")
    labels = {"role": "worker", "reason": "internal_error"}
    assert bench.meters.registry.get_sample_value("joblog_quarantined_records_total", labels) == 1


@pytest.mark.parametrize(
    ("name", "owner", "method"),
    [
        ("add", Slots, "add"),
        ("add", ThreadExecutor, "start"),
        ("add", Run, "begin"),
        ("add", RunMeters, "started"),
        ("add_async", LoopExecutor, "start"),
        ("add_async", Run, "begin"),
        ("add_async", RunMeters, "started"),
    ],
)
def test_an_error_of_the_worker_parks_the_assignment_fails_its_run_and_nothing_else(
    bench: Bench, name: str, owner: type, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_method(monkeypatch, owner, method)
    job = bench.assign(name, 1)
    report = bench.report()
    assert (report.job_id, report.exception.type, report.exception.message) == (job.job_id, "MemoryError", "no room")
    is_parked(bench, job)
    bench.until(lambda: not bench.slots.running)
    for number in range(4):  # more than there are slots: none was lost
        bench.assign(name, number)
        assert isinstance(bench.report(number + 2), RunSucceeded)


def test_an_error_while_one_assignment_is_taken_does_not_concern_those_around_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [bench.job("add", number) for number in range(3)]

    def take(intake: Intake, job: RunJob, *rest: Any) -> None:
        if job is jobs[1]:
            raise MemoryError("no room")
        before(intake, job, *rest)

    before = Intake._take
    monkeypatch.setattr(Intake, "_take", take)
    bench.intake.accept(map(arrived, jobs))
    bench.report(3)
    ends = {report.job_id: type(report) for report in bench.reports}  # type: ignore[union-attr]
    assert ends == {jobs[0].job_id: RunSucceeded, jobs[1].job_id: RunFailed, jobs[2].job_id: RunSucceeded}
    is_parked(bench, jobs[1])


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_a_run_is_reported_even_if_its_outcome_cannot_be(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_method(monkeypatch, Reports, "ended")
    job = bench.assign(name, 1)
    assert bench.report().exception.type == "MemoryError"
    is_parked(bench, job)


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_a_run_that_cannot_be_counted_is_reported_once(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_method(monkeypatch, RunMeters, "ended")
    bench.assign(name, 1)
    assert isinstance(bench.report(), RunSucceeded)
    bench.until(lambda: not bench.slots.running)
    assert bench.report()
    assert bench.sender.parked == []


def test_a_run_that_times_out_is_reported_though_it_cannot_be_interrupted(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("the loop is closed")

    bench.assign("obey")
    bench.until(lambda: [run for run in bench.slots.running if run.started_ms])
    [run] = bench.slots.running
    run.interrupt = broken
    bench.endings.time_out(run)
    assert bench.report().exception.type == "joblog.streams.errors.JobTimeout"
    assert "run.not_interrupted" in caplog.messages


@pytest.mark.parametrize(
    ("value", "lane"),
    [
        (b"not JSON", None),
        (b'{"type":"job.cancel","job_id":"j","lease":1}', None),
        (
            b'{"type":"job.run","job_id":"j","lease":2,"lane":1,"task":"\xc3(","queue":"q","attempt":1,"spec":{}}',
            LANE,
        ),
        (b'{"type":"job.run","job_id":"j","lease":2,"lane":9,"task":"t","queue":"q"}', None),
    ],
)
def test_an_assignment_that_cannot_be_read_is_parked_and_its_run_fails(
    bench: Bench, value: bytes, lane: int | None
) -> None:
    unreadable = read_assignment(value, LANE + 1)
    assert isinstance(unreadable, Unreadable)
    after = bench.job("add", 1)
    bench.intake.accept([(record_of(value), unreadable), arrived(after)])
    failed = [report for report in bench.reports if isinstance(report, RunFailed)]
    [(parked, headers)] = bench.sender.parked
    assert (parked, headers["joblog-reason-code"], headers["joblog-offset"]) == (value, "undecodable", "7")
    assert headers["joblog-reason"] == unreadable.reason
    labels = {"role": "worker", "reason": "undecodable"}
    assert bench.meters.registry.get_sample_value("joblog_quarantined_records_total", labels) == 1
    if lane is None:
        assert failed == []
    else:
        [report] = failed
        assert (report.job_id, report.lease, report.worker, bench.sender.lanes[0]) == ("j", 2, WORKER, lane)
        assert "The assignment cannot be read: " in report.exception.message
    bench.until(lambda: after.job_id in [report.job_id for report in bench.reports])  # type: ignore[union-attr]


def test_a_run_that_was_stopped_before_it_could_be_interrupted_is_interrupted_at_once(bench: Bench) -> None:
    bench.assign("obey")
    (run,) = bench.intake.held.values()
    interrupted: list[str] = []
    run.interruptible_by(lambda: interrupted.append("first"))
    assert interrupted == []
    run.stop("over")
    run.interruptible_by(lambda: interrupted.append("second"))
    assert interrupted == ["first", "second"]


@pytest.mark.parametrize(("tasks", "names"), [([add], {"slot-0"}), ([add, add_async], {"slot-0", "slots-async"})])
def test_a_worker_has_the_threads_it_cannot_do_without_before_the_first_job(
    tasks: list[Any], names: set[str]
) -> None:
    before = set(threading.enumerate())
    worker = Worker(
        KafkaConfig("127.0.0.1:9"),
        TopicNames("none."),
        1,
        TaskRegistry.of(*tasks),
        queues=["default"],
        meters=Meters(),
        health=Health("worker"),
    )
    with worker._executors(RecordingSender()):
        assert {thread.name for thread in set(threading.enumerate()) - before} == names


def test_runs_are_counted_and_timed(bench: Bench) -> None:
    bench.assign("add", 1)
    bench.assign("fail")
    bench.report(2)
    bench.until(lambda: not bench.slots.running)
    assert bench.counted("joblog_jobs_started_total", task="add") == 1
    assert bench.counted("joblog_jobs_finished_total", task="add", outcome="succeeded") == 1
    assert bench.counted("joblog_jobs_finished_total", task="fail", outcome="failed") == 1
    assert bench.counted("joblog_job_duration_seconds_count", task="add") == 1
    assert 0.5 <= bench.counted("joblog_job_wait_seconds_sum", task="add") < TIMEOUT_S


def test_no_run_is_counted_twice_or_not_at_all_while_others_end(bench: Bench) -> None:
    record, job = arrived(bench.job("add"))
    assert isinstance(job, RunJob)
    run = Run(job, known_tasks(TASKS)["add"], "w:1", {}, 0.0, bench.leases, record)
    run.begin()
    meters, done, each = RunMeters(bench.meters), threading.Event(), 20_000

    def end_many() -> None:
        for _ in range(each):
            meters.started(run)
            meters.ended(run, "succeeded")

    def flush_always() -> None:
        while not done.is_set():
            meters.flush()

    flusher = threading.Thread(target=flush_always)
    enders = [threading.Thread(target=end_many) for _ in range(2)]
    for thread in (flusher, *enders):
        thread.start()
    for thread in enders:
        thread.join()
    done.set()
    flusher.join()
    meters.flush()
    for name in ("joblog_jobs_started_total", "joblog_job_wait_seconds_count", "joblog_job_duration_seconds_count"):
        assert bench.counted(name, task="add") == 2 * each
    assert bench.counted("joblog_jobs_finished_total", task="add", outcome="succeeded") == 2 * each


def test_the_thread_of_a_finished_run_runs_the_next_one(bench: Bench) -> None:
    before = threading.active_count()
    for number in range(20):
        bench.assign("add", number)
        bench.report(number + 1)
        bench.until(lambda: not bench.slots.running)
    assert threading.active_count() - before <= 2


@task("wait_async")
async def wait_async(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "waited"


@task("leave_inside")
async def leave_inside() -> None:
    async def inside() -> None:
        sys.exit(3)

    await asyncio.gather(inside())


@task("stop_loop")
async def stop_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)


@task("cancel_all")
async def cancel_all() -> None:
    for one in asyncio.all_tasks() - {asyncio.current_task()}:
        one.cancel()


ROUGH = TaskRegistry.of(add_async, wait_async, leave_inside, stop_loop, cancel_all)


@pytest.mark.parametrize("name", ["leave_inside", "stop_loop"])
def test_a_coroutine_that_ends_the_event_loop_costs_no_other_run(name: str) -> None:
    bench = Bench(slots=3, tasks=ROUGH)
    try:
        beside = bench.assign("wait_async", 0.2)
        bench.until(lambda: any(run.started_at for run in bench.intake.held.values()))
        bench.assign(name)
        bench.report(2)
        after = bench.assign("add_async", 2)
        bench.report(3)
        results = {one.job_id: one.result for one in bench.reports if isinstance(one, RunSucceeded)}
        assert results[beside.job_id] == Raw(b'"waited"')
        assert results[after.job_id] == Raw(b"3")
    finally:
        bench.close()


def test_a_coroutine_that_cancels_all_others_before_their_first_step_costs_no_run() -> None:
    """They could not say themselves how they ended."""
    bench = Bench(slots=4, tasks=ROUGH)
    try:
        jobs = [bench.job("cancel_all"), *(bench.job("add_async", number) for number in range(3))]
        bench.intake.accept([arrived(job) for job in jobs])
        bench.report(4)
        assert {type(one) for one in bench.reports} == {RunSucceeded}
        bench.assign("add_async", 2)
        assert bench.report(5).result == Raw(b"3")
    finally:
        bench.close()


def test_a_coroutine_that_cancels_a_run_after_its_first_step_fails_it() -> None:
    bench = Bench(slots=2, tasks=ROUGH)
    try:
        beside = bench.assign("wait_async", 60)
        bench.until(lambda: any(run.started_at for run in bench.intake.held.values()))
        bench.assign("cancel_all")
        bench.report(2)
        [failed] = [one for one in bench.reports if isinstance(one, RunFailed)]
        assert failed.job_id == beside.job_id
        assert failed.exception.type == "asyncio.exceptions.CancelledError"
        bench.assign("add_async", 2)
        assert bench.report(3).result == Raw(b"3")
    finally:
        bench.close()


def fork_off(fails: bool) -> int:
    """Forks, and lets the fork come back; returns how it ended, -9 if it did not."""
    fork = os.fork()
    if fork == 0:
        if fails:
            raise LookupError("in the fork")
        return -1
    end = time.monotonic() + 1
    while os.waitid(os.P_PID, fork, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < end:
        time.sleep(0.001)
    os.kill(fork, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])


@task("fork_off_sync")
def fork_off_sync(fails: bool) -> int:
    return fork_off(fails)


@task("fork_off_async")
async def fork_off_async(fails: bool) -> int:
    return fork_off(fails)


@task("note")
def note(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("x")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ["fork_off_sync", "fork_off_async"])
def test_a_fork_that_comes_back_from_a_task_ends_and_runs_nothing_of_its_worker(
    name: str, fails: bool, tmp_path: Path
) -> None:
    bench = Bench(slots=1, tasks=TaskRegistry.of(fork_off_sync, fork_off_async, note))
    notes = tmp_path / "notes"
    try:
        bench.intake.accept([arrived(bench.job(name, fails)), arrived(bench.job("note", str(notes)))])
        bench.report(2)
        assert notes.read_text() == "x"
        assert bench.reports[0].result == Raw(b"1")  # type: ignore[union-attr]
    finally:
        bench.close()
