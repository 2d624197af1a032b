import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from joblog.services.roles.runner import Runnable, run_role, stopped_by_signals
from joblog.services.settings.model import HttpSettings, LogSettings, Settings
from joblog.streams.errors import Fenced, JoblogError, LogLost, SettingsError, TopicsError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters

SETTINGS = Settings(http=HttpSettings(enabled=False), logs=LogSettings(format="json"))


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


class Stopping:
    """Ends when told to, which it asks for itself."""

    def __init__(self, meters: Meters, health: Health) -> None:
        self.meters, self.health = meters, health
        self.stopped = False

    def run(self, stop: threading.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        self.stopped = stop.wait(10)


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, stop: threading.Event) -> None:
        assert not stop.is_set()
        raise self.error


def test_a_role_runs_until_sigterm_and_ends_well() -> None:
    made: list[Stopping] = []

    def build(meters: Meters, health: Health) -> Runnable:
        made.append(Stopping(meters, health))
        return made[0]

    before = signal.getsignal(signal.SIGTERM)
    assert run_role("elector", build, SETTINGS) == 0
    assert made[0].stopped
    assert made[0].health.role == "elector"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LogLost("x"), 1),
        (RuntimeError("x"), 1),
        (SettingsError("x"), 2),
        (TopicsError("x"), 2),
        (Fenced("x"), 75),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_a_role_ended_is_its_exit_code(capsys: pytest.CaptureFixture[str], error: Exception, code: int) -> None:
    assert run_role("elector", lambda _meters, _health: Failing(error), SETTINGS) == code
    err = capsys.readouterr().err
    assert ("Traceback" in err) == (not isinstance(error, JoblogError))


def test_a_role_that_cannot_be_built_is_told_likewise(capsys: pytest.CaptureFixture[str]) -> None:
    def build(_meters: Meters, _health: Health) -> Runnable:
        raise SettingsError("no tasks")

    assert run_role("worker", build, SETTINGS) == 2
    assert "no tasks" in capsys.readouterr().err


def test_what_runs_is_a_metric() -> None:
    found: list[Meters] = []

    def build(meters: Meters, _health: Health) -> Runnable:
        found.append(meters)
        return Failing(LogLost("enough"))

    run_role("elector", build, SETTINGS)
    samples = {sample.name: sample.labels for metric in found[0].registry.collect() for sample in metric.samples}
    assert samples["joblog_build_info"]["role"] == "elector"
    assert "process_resident_memory_bytes" in samples


def test_a_signal_may_come_while_the_main_thread_holds_the_lock_of_the_event() -> None:
    stop = threading.Event()
    with stopped_by_signals(stop):
        with stop._cond:  # type: ignore[attr-defined]  # as it does for moments within stop.wait()
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(10)


def test_no_thread_is_left_behind_by_listening_to_signals() -> None:
    with stopped_by_signals(threading.Event()):
        assert "signals" in {thread.name for thread in threading.enumerate()}
    assert "signals" not in {thread.name for thread in threading.enumerate()}


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    script = """
        import sys, threading, time
        from joblog.services.roles.runner import stopped_by_signals
        stop = threading.Event()
        with stopped_by_signals(stop):
            print("started", flush=True)
            stop.wait(30)
            print("stopping", flush=True)
            time.sleep(30)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130
