import subprocess
import sys
import textwrap

import pytest

BEFORE = """
    import atexit, sys, threading, time
    from concurrent.futures import ThreadPoolExecutor
    from joblog.services.worker.leaving import leave_within

    begun = threading.Event()

    def in_executor():
        with ThreadPoolExecutor() as executor:
            executor.submit(time.sleep, 600)
            begun.set()
"""


def ended(script: str) -> tuple[int, str, str]:
    """Exit code and output of a script that leaves; it is not waited for as long as its threads would run."""
    text = textwrap.dedent(BEFORE) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "busy",
    [
        "executor = ThreadPoolExecutor(); executor.submit(time.sleep, 600)",
        "threading.Thread(target=time.sleep, args=[600], name='busy_0').start()",
        # As tasks do: an executor's thread in a daemon.
        "threading.Thread(target=in_executor, daemon=True).start(); begun.wait()",
    ],
)
def test_threads_that_are_busy_do_not_keep_the_process(busy: str) -> None:
    script = f"""
        {busy}
        print("said")
        leave_within(0.5, 3)
        sys.exit(3)
    """
    code, out, err = ended(script)
    assert (code, out) == (3, "said\n")
    assert "worker.threads_left" in err


@pytest.mark.parametrize("stream", ["sys.stdout = None", "sys.stdout.close(); sys.stderr.close()"])
def test_a_process_ends_whatever_a_task_has_done_to_its_streams(stream: str) -> None:
    script = f"""
        threading.Thread(target=time.sleep, args=[600]).start()
        {stream}
        leave_within(0.1, 3)
        sys.exit(3)
    """
    assert ended(script)[0] == 3


def test_threads_that_are_free_end_in_order_and_what_comes_after_them_has_its_time() -> None:
    script = """
        def last():
            time.sleep(1)  # longer than the threads have
            print("last")
        atexit.register(last)
        executor = ThreadPoolExecutor(2)
        executor.submit(int).result()
        leave_within(0.5, 3)
        sys.exit(3)
    """
    assert ended(script) == (3, "last\n", "")
