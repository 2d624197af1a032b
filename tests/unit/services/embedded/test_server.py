import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from joblog.services.embedded.guard import guard
from joblog.services.embedded.postgres import make_passable
from joblog.services.embedded.server import ServerProcess, run_program, stop_orphan
from joblog.streams.errors import StackError

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)", "mark"]
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
WAIT_S = 20


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield psutil.Process(process.pid)
        process.kill()


def start(tmp_path: Path, *command: str) -> ServerProcess:
    log_file = tmp_path / "server.log"
    return ServerProcess("Server", command, directory=tmp_path, log_file=log_file, polite=signal.SIGTERM)


def test_a_stopped_server_and_its_guard_are_gone(tmp_path: Path) -> None:
    server = start(tmp_path, *SLEEPER)
    assert server.is_running
    assert len(psutil.Process().children()) == 2
    server.ask_to_stop()
    server.wait()
    assert not server.is_running
    assert psutil.Process().children() == []


def test_a_server_that_ends_while_starting_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    server = start(tmp_path, sys.executable, "-c", "print('out of coffee'); raise SystemExit(3)")
    with pytest.raises(StackError, match=r"Server ended while starting \(exit code 3\)[\s\S]*out of coffee"):
        server.wait_until(lambda: False, timeout_s=WAIT_S)
    server.wait()


def test_a_server_that_is_not_ready_in_time_is_an_error(tmp_path: Path) -> None:
    server = start(tmp_path, *SLEEPER)
    with pytest.raises(StackError, match="Server was not ready after 0 s"):
        server.wait_until(lambda: False, timeout_s=0.2)
    server.ask_to_stop(signal.SIGKILL)
    server.wait()


def test_a_server_sees_nothing_of_the_users_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dsurprise")
    server = start(tmp_path, sys.executable, "-c", "import os; print(sorted(os.environ))")
    server.wait()
    assert "JAVA_TOOL_OPTIONS" not in server.log_file.read_text()
    assert "PATH" in server.log_file.read_text()


def test_a_program_that_fails_is_an_error_with_what_it_said() -> None:
    with pytest.raises(StackError, match="no such luck"):
        run_program([sys.executable, "-c", "import sys; sys.exit('no such luck')"], directory=Path("/"))


def test_an_orphan_is_stopped(tmp_path: Path, sleeper: psutil.Process) -> None:
    pid_file = tmp_path / "server.pid"
    pid_file.write_text(f"{sleeper.pid}\n")
    said: list[str] = []
    stop_orphan(pid_file, "mark", signal.SIGTERM, said.append)
    assert not sleeper.is_running()
    assert said[0].startswith(f"stopping process {sleeper.pid} ")


def test_another_process_under_an_old_pid_is_left_alone_and_the_file_goes(
    tmp_path: Path, sleeper: psutil.Process
) -> None:
    pid_file = tmp_path / "server.pid"
    pid_file.write_text(f"{sleeper.pid}\n")
    said: list[str] = []
    stop_orphan(pid_file, "another mark", signal.SIGTERM, said.append)
    assert sleeper.is_running()
    assert not pid_file.exists()
    assert said == []


@pytest.mark.parametrize("content", [None, "", "words\n", f"{2**22 + 1}\n"])
def test_a_pid_file_that_names_no_process_means_no_orphan(tmp_path: Path, content: str | None) -> None:
    pid_file = tmp_path / "server.pid"
    if content is not None:
        pid_file.write_text(content)
    stop_orphan(pid_file, "mark", signal.SIGTERM, pytest.fail)


def test_a_guard_ends_its_server_when_the_owner_is_gone(sleeper: psutil.Process) -> None:
    not_our_parent = os.getpid()
    # The server stays a zombie until this test, its parent, waits for it: hence the short patience.
    guard(not_our_parent, sleeper.pid, signal.SIGTERM, poll_s=0.01, patience_s=0.1)
    assert sleeper.wait(WAIT_S) == -signal.SIGTERM


def test_a_guard_of_a_live_owner_ends_with_its_server(sleeper: psutil.Process) -> None:
    sleeper.kill()
    sleeper.wait(WAIT_S)
    guard(os.getppid(), sleeper.pid, signal.SIGTERM, poll_s=0.01)


def test_a_guard_kills_a_server_that_does_not_listen() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == b"up\n"
        guard(os.getpid(), stubborn.pid, signal.SIGTERM, poll_s=0.01, patience_s=0.1)
        assert stubborn.wait(WAIT_S) == -signal.SIGKILL


def test_directories_above_are_opened_for_passing_only_and_it_is_said(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    said: list[str] = []
    make_passable(closed / "data", said.append)
    assert closed.stat().st_mode & 0o777 == 0o701
    assert said[-1].startswith(f"chmod o+x {closed}, ")
    said.clear()
    make_passable(closed / "data", said.append)
    assert said == []
