import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

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
