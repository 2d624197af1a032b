import signal
import subprocess
import sys
import time
from contextvars import copy_context
from pathlib import Path

import msgspec
import psutil
import pytest
from joblog.services.worker_processes import run_in_child
from joblog.services.worker_run import Failed
from joblog.streams.wire import RunJob
from msgspec import Raw

TIMEOUT_S = 60

#: A worker's process that starts a child in the worker's way, and is killed before the child is done.
PARENT = """
import multiprocessing, os, sys, time
from joblog.services.worker_processes import end_with_parent

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
from joblog.services.tasks import task

def plainly(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args)
    return wrapper

@task("wrapped", isolation="process")
@plainly
async def wrapped(): pass
"""


def test_a_task_that_returns_what_nobody_awaits_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrapped_tasks.py").write_text(WRAPPED)
    monkeypatch.syspath_prepend(tmp_path)
    job = RunJob(job_id="j", lease=1, attempt=1, lane=0, task="wrapped", queue="default", spec=Raw(b"{}"), ready_ms=0)
    said = copy_context().run(run_in_child, "wrapped_tasks", "wrapped", msgspec.json.encode(job), "w", 1_000)
    ended = msgspec.json.decode(said, type=Failed)
    assert ended.exception.type == "joblog.services.worker_results.NeverAwaited"
