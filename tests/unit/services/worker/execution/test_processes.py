import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from joblog.services.roles import worker as wiring_worker
from joblog.services.roles.logs import configure_logs
from joblog.services.roles.topics import CheckedRole
from joblog.services.settings.model import LogSettings, Settings, WorkerSettings
from joblog.services.tasks.task import TaskRegistry
from joblog.services.worker.execution import processes
from joblog.services.worker.execution.child import run_in_child
from joblog.services.worker.execution.processes import ProcessEnded, ProcessRuns, RunProcess
from joblog.services.worker.execution.results import Failed, Succeeded
from joblog.services.worker.execution.run import Leases, Run, known_tasks
from joblog.services.worker.execution.told import Taken
from joblog.streams.contract.wire import RunJob
from joblog.streams.health import Health
from joblog.streams.metrics import Meters
from msgspec import Raw

from tests.support.assigned import record_of

TIMEOUT_S = 60

#: A worker's process that starts a child in the worker's way, and is killed before the child is done.
PARENT = """
import multiprocessing, os, sys, time
from joblog.services.worker.execution.child import end_with_parent

def busy(mark):
    end_with_parent()
    with open(mark + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(mark + ".new", mark)
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=busy, args=[sys.argv[1]]).start()
    time.sleep(600)
"""


def test_a_run_in_a_process_ends_with_its_worker_even_if_that_is_killed(tmp_path: Path) -> None:
    script, mark = tmp_path / "parent.py", tmp_path / "mark"
    script.write_text(PARENT)
    deadline = time.monotonic() + TIMEOUT_S
    with subprocess.Popen([sys.executable, str(script), str(mark)]) as parent:
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child = psutil.Process(int(mark.read_text()))
        assert child.is_running()
        parent.send_signal(signal.SIGKILL)
    child.wait(TIMEOUT_S)
    assert not child.is_running()


WRAPPED = """
import functools
from joblog.services.tasks.task import task

def plainly(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args)
    return wrapper

@task("wrapped", isolation="process")
@plainly
async def wrapped(): pass
"""


def job_of(name: str, *args: object, **kwargs: object) -> RunJob:
    spec = Raw(msgspec.json.encode({"args": args, "kwargs": kwargs}))
    return RunJob(job_id="j-1", lease=1, attempt=1, lane=0, task=name, queue="default", spec=spec, ready_ms=0)


def test_a_task_that_returns_what_nobody_awaits_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrapped_tasks.py").write_text(WRAPPED)
    monkeypatch.syspath_prepend(tmp_path)
    job = msgspec.json.encode(job_of("wrapped"))
    said = copy_context().run(run_in_child, "wrapped_tasks", "wrapped", job, "w", 1_000)
    ended = msgspec.json.decode(said, type=Failed)
    assert ended.exception.type == "joblog.services.worker.execution.results.NeverAwaited"


#: Tasks that tell their process by a file, and run until there is another file.
WAITING = """
import asyncio, logging, multiprocessing, os, pathlib, subprocess, sys, threading, time
from multiprocessing.util import Finalize
from joblog.services.tasks.context import CancellationToken, current_job
from joblog.services.tasks.task import task

@task("wait", isolation="process")
def wait(where: str) -> str:
    mark, gate = pathlib.Path(where, "mark"), pathlib.Path(where, "gate")
    Finalize(None, pathlib.Path(where, "finalized").touch, exitpriority=1)
    mark.with_suffix(".new").write_text(str(os.getpid()))
    mark.with_suffix(".new").rename(mark)
    while not gate.exists():
        time.sleep(0.01)
    return "done"

@task("pid", isolation="process")
def pid() -> int:
    return os.getpid()

@task("hold", isolation="process")
def hold(mark: str, gate: str) -> str:
    pathlib.Path(mark + ".new").write_text(str(os.getpid()))
    pathlib.Path(mark + ".new").rename(mark)
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)
    return "done"

@task("orphan", isolation="process")
def orphan(mark: str) -> None:
    if os.fork() == 0:  # keeps all that it inherits open
        time.sleep(600)
    hold.function(mark, "/nowhere")

@task("program", isolation="process")
def program() -> str:
    code = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.pthread_sigmask(0, ()))"
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout

@task("fork", isolation="process")
def fork() -> int:
    exitcodes = set()
    for _ in range(50):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        child.join()
        exitcodes.add(child.exitcode)
    (exitcode,) = exitcodes
    return exitcode

@task("listen", isolation="process")
def listen(mark: str, token: CancellationToken, wait_s: float = 0) -> str:
    with open(mark + ".new", "w") as file: file.write(str(os.getpid()))
    os.rename(mark + ".new", mark)
    token.wait()
    time.sleep(wait_s)
    return token.reason

@task("listen_async", isolation="process")
async def listen_async(mark: str) -> None:
    with open(mark + ".new", "w") as file: file.write(str(os.getpid()))
    os.rename(mark + ".new", mark)
    try:
        await asyncio.sleep(600)
    finally:
        with open(mark + ".cancelled", "w"): pass

@task("speak", isolation="process")
def speak() -> None:
    current_job().progress(0.5, "half\\0")
    current_job().log("a\\nb")

@task("leave_thread", isolation="process")
def leave_thread(mark: str) -> str:
    job = current_job()
    def go_on() -> None:
        while not pathlib.Path(mark).exists():
            time.sleep(0.005)
            job.log("of another job")
            pathlib.Path(mark + ".said").touch()
        pathlib.Path(mark + ".over").touch()
    threading.Thread(target=go_on, daemon=True).start()
    return "first"

@task("leave_process", isolation="process")
def leave_process(mark: str) -> str:
    job, here = current_job(), os.getpid()
    if os.fork() == 0:
        while os.getppid() == here and not pathlib.Path(mark).exists():
            time.sleep(0.005)
            job.log("of another job")
            pathlib.Path(mark + ".said").touch()
        pathlib.Path(mark + ".over").touch()
        os._exit(0)
    return "first"

@task("fork_and_fail", isolation="process")
def fork_and_fail(share: str) -> str:
    fork = os.fork()
    if fork == 0:
        if share == "raises":
            raise LookupError("in the fork")
        return "of the fork"
    os.waitpid(fork, 0)
    return "of the run"

@task("log", isolation="process")
def log() -> None:
    logging.getLogger("shop").info("sold", extra={"item": 7})
    logging.getLogger("shop").debug("not this")
"""


class Runs:
    """Processes for the tasks above."""

    def __init__(self, where: Path, set_up: Callable[[], object] | None = None, count: int = 1) -> None:
        module = f"waiting_tasks_{secrets.token_hex(4)}"
        (where / f"{module}.py").write_text(WAITING)
        self.where = where
        self._known = known_tasks(TaskRegistry.load(module))
        self._runs = ProcessRuns(1_000, set_up)
        self._threads = ThreadPoolExecutor(count)

    def close(self) -> None:
        (self.where / "gate").touch()
        self._runs.close()
        self._threads.shutdown()

    def begin(self, name: str, *args: object, **kwargs: object) -> tuple[Run, Any]:
        """A run, and the future of its end."""
        run = Run(
            job_of(name, *args, **kwargs), self._known[name], "w", {}, 0.0, Leases((0,), inf, 0.0), record_of(None)
        )
        return run, self._threads.submit(self._runs.perform, run, None)

    def result(self, name: str, *args: object) -> Any:
        ended = self.begin(name, *args)[1].result(TIMEOUT_S)
        assert isinstance(ended, Succeeded)
        return msgspec.json.decode(ended.result)

    def pid(self) -> int | None:
        """The process of a run of `wait`, once it runs."""
        mark = self.where / "mark"
        return int(mark.read_text()) if mark.exists() else None


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@contextmanager
def runs_in(where: Path, set_up: Callable[[], object] | None = None, count: int = 1) -> Iterator[Runs]:
    made = Runs(where, set_up, count)
    try:
        yield made
    finally:
        made.close()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return found


def children_for_runs() -> Iterator[psutil.Process]:
    """The processes of runs; not those that Python makes for itself."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if any("spawn_main" in word for word in child.cmdline()):
                yield child


def signal_children(number: signal.Signals) -> None:
    """What a control group does, and a terminal; also to children that have only just begun."""
    for child in children_for_runs():
        with suppress(psutil.NoSuchProcess):
            child.send_signal(number)


def test_a_signal_to_all_processes_of_a_worker_leaves_runs_their_time(where: Path) -> None:
    with runs_in(where) as runs:
        _, ended = runs.begin("wait", str(where))
        while runs.pid() is None and not ended.done():
            signal_children(signal.SIGTERM)
            signal_children(signal.SIGINT)
            time.sleep(0.001)
        signal_children(signal.SIGTERM)
        signal_children(signal.SIGINT)
        (where / "gate").touch()
        assert msgspec.json.decode(ended.result(TIMEOUT_S).result) == "done"
        # What a task starts is ended by signals as ever.
        assert runs.result("program").split() == ["True", "set()"]
        assert runs.result("fork") == -signal.SIGTERM


def test_a_run_that_is_stopped_ends_in_order(where: Path) -> None:
    with runs_in(where) as runs:
        run, ended = runs.begin("wait", str(where))
        pid = until(runs.pid)
        run.stop("timeout")
        with pytest.raises(CancelledError):
            ended.result(TIMEOUT_S)
        until(lambda: not psutil.pid_exists(pid))
        assert (where / "finalized").exists()  # it was not killed


def test_a_run_that_looks_at_its_token_ends_by_itself(where: Path) -> None:
    with runs_in(where, count=2) as runs:
        run, ended = runs.begin("listen", str(where / "mark"))
        until((where / "mark").exists)
        run.stop("cancelled: the job is Deleted")
        assert msgspec.json.decode(ended.result(TIMEOUT_S).result) == "cancelled: the job is Deleted"
        run, ended = runs.begin("listen_async", str(where / "coroutine"))
        until((where / "coroutine").exists)
        run.stop("cancelled")
        assert "CancelledError" in ended.result(TIMEOUT_S).exception.type
        assert (where / "coroutine.cancelled").exists()


def test_a_run_that_looks_at_its_token_and_goes_on_is_killed(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LISTEN_S", 0.1)
    with runs_in(where) as runs:
        run, ended = runs.begin("listen", str(where / "mark"), wait_s=600)
        until((where / "mark").exists)
        run.stop("cancelled")
        with pytest.raises(CancelledError):
            ended.result(TIMEOUT_S)
        assert not psutil.pid_exists(int((where / "mark").read_text()))


def test_what_a_run_in_a_process_says_is_passed_on(where: Path) -> None:
    with runs_in(where) as runs:
        run, ended = runs.begin("speak")
        ended.result(TIMEOUT_S)
        assert run.told is not None
        assert run.told.take(0.0) == Taken(0.5, "half\ufffd", ("a", "b"))


def held(runs: Runs, name: str, gate: Path) -> tuple[int, Any]:
    """A run of `hold`: its process, and the future of its end."""
    mark = runs.where / name
    _, ended = runs.begin("hold", str(mark), str(gate))
    until(mark.exists)
    return int(mark.read_text()), ended


def test_a_process_that_is_killed_costs_its_own_run_only(where: Path) -> None:
    with runs_in(where, count=4) as runs:
        gate = where / "gate"
        held_runs = [held(runs, f"mark-{number}", gate) for number in range(4)]
        (victim, lost), *others = held_runs
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(ProcessEnded, match="exit code -9"):
            lost.result(TIMEOUT_S)
        _, next_one = held(runs, "mark-next", gate)  # the slot has another process
        gate.touch()
        ends = [msgspec.json.decode(ended.result(TIMEOUT_S).result) for _, ended in [*others, (0, next_one)]]
        assert ends == ["done"] * 4


def test_processes_that_are_killed_while_idle_cost_no_run(where: Path) -> None:
    with runs_in(where, count=3) as runs:
        gate = where / "gate"
        idle = [held(runs, f"idle-{number}", gate) for number in range(3)]
        gate.touch()
        for _, ended in idle:
            ended.result(TIMEOUT_S)
        running, goes_on = held(runs, "running", where / "gate-2")
        for pid in {pid for pid, _ in idle} - {running}:
            os.kill(pid, signal.SIGKILL)
        assert {type(runs.result("pid")) for _ in range(3)} == {int}
        (where / "gate-2").touch()
        assert msgspec.json.decode(goes_on.result(TIMEOUT_S).result) == "done"


def test_runs_begin_although_all_processes_were_killed_just_now(where: Path) -> None:
    with runs_in(where, count=2) as runs:
        for _ in range(5):
            os.kill(runs.result("pid"), signal.SIGKILL)
            assert runs.result("pid") > 0


def test_no_more_runs_are_lost_than_processes_are_killed(where: Path) -> None:
    with runs_in(where, count=4) as runs:
        runs.result("pid")
        futures = [runs.begin("pid")[1] for _ in range(300)]
        kills = 0
        while not all(future.done() for future in futures):
            children = [child.pid for child in children_for_runs()]
            if kills < 20 and children:
                with suppress(ProcessLookupError):
                    os.kill(random.choice(children), signal.SIGKILL)
                    kills += 1
            time.sleep(0.05)
        lost = [future.exception(TIMEOUT_S) for future in futures if future.exception(TIMEOUT_S) is not None]
        assert {type(error) for error in lost} <= {ProcessEnded}
        assert len(lost) <= kills


def test_a_run_whose_process_died_fails_though_a_child_of_the_process_lives(where: Path) -> None:
    with runs_in(where) as runs:
        mark = where / "orphan"
        _, ended = runs.begin("orphan", str(mark))
        pid = int(until(lambda: mark.exists() and mark.read_text()))
        grandchildren = psutil.Process(pid).children()
        try:
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ProcessEnded):
                ended.result(TIMEOUT_S)
        finally:
            for grandchild in grandchildren:
                grandchild.kill()


def test_a_run_that_is_told_to_stop_too_late_leaves_its_process_to_the_next_run(where: Path) -> None:
    with runs_in(where) as runs:
        for number in range(3):
            run, ended = runs.begin("pid")
            while not ended.done():
                pass
            assert isinstance(ended.result(), Succeeded)
            # The next run has the process when the first one is told to stop.
            mark, gate = where / f"mark-{number}", where / f"gate-{number}"
            _, following = runs.begin("hold", str(mark), str(gate))
            until(mark.exists)
            run.stop("too late")
            gate.touch()
            assert msgspec.json.decode(following.result(TIMEOUT_S).result) == "done"
            assert mark.read_text() == bytes(ended.result().result).decode()


def until_said_again(where: Path) -> None:
    for _ in range(2):  # the first one may have been about to be noted
        (where / "left.said").unlink(missing_ok=True)
        until((where / "left.said").exists)


@pytest.mark.parametrize("name", ["leave_thread", "leave_process"])
def test_what_a_run_leaves_behind_in_its_process_says_nothing_between_other_runs(where: Path, name: str) -> None:
    with runs_in(where) as runs:
        mark = where / "left"
        assert runs.result(name, str(mark)) == "first"
        until_said_again(where)
        running, gate = where / "running", where / "gate-of-next"
        run, ended = runs.begin("hold", str(running), str(gate))
        until(running.exists)
        until_said_again(where)
        gate.touch()
        assert msgspec.json.decode(ended.result(TIMEOUT_S).result) == "done"
        assert name == "leave_process" or run.told is None
        assert runs.result("pid") == int(running.read_text())
        mark.touch()
        until((where / "left.over").exists)


@pytest.mark.parametrize("share", ["raises", "returns"])
def test_a_fork_that_comes_back_from_a_task_does_not_speak_for_its_run(where: Path, share: str) -> None:
    with runs_in(where) as runs:
        assert runs.result("fork_and_fail", share) == "of the run"
        pid = runs.result("pid")
        assert runs.result("pid") == pid


def test_a_process_that_is_over_already_is_ended_without_a_word() -> None:
    process = RunProcess(target=os.getpid)
    process.start()
    process.join(TIMEOUT_S)
    process.terminate()
    assert process.exitcode == 0


def test_what_a_task_logs_in_a_process_looks_like_the_workers_logs(
    where: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with runs_in(where, partial(configure_logs, "json", "INFO", "worker")) as runs:
        assert runs.result("log") is None
    (line,) = [json.loads(line) for line in capfd.readouterr().err.splitlines() if '"sold"' in line or "not" in line]
    said = {name: line[name] for name in ("level", "event", "role", "logger", "item", "job_id", "attempt", "task")}
    assert said == {
        "level": "info",
        "event": "sold",
        "role": "worker",
        "logger": "shop",
        "item": 7,
        "job_id": "j-1",
        "attempt": 1,
        "task": "log",
    }


def test_processes_log_as_their_worker_was_told_to(where: Path) -> None:
    (where / "logging_tasks.py").write_text(WAITING)
    settings = Settings(
        worker=WorkerSettings(tasks=("logging_tasks",), name="w"), logs=LogSettings(format="json", level="DEBUG")
    )
    checked = wiring_worker.worker(settings)(Meters(), Health("worker"))
    assert isinstance(checked, CheckedRole)
    registering = checked.role
    assert isinstance(registering, wiring_worker.Registering)
    worker = registering.worker
    set_up = worker._set_up_child
    assert isinstance(set_up, partial)
    assert (set_up.func, set_up.args) == (configure_logs, ("json", "DEBUG", "worker"))
