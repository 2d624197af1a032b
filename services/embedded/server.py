"""One server as a child process: started with a guard, stopped by signal, found again if its owner was killed."""

import contextlib
import logging
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from joblog.streams.errors import StackError

log = logging.getLogger(__name__)

GUARD = Path(__file__).with_name("guard.py")
STOP_TIMEOUT_S = 60
PROGRAM_TIMEOUT_S = 120
POLL_S = 0.05
LOG_TAIL_LINES = 12
# No variable of the user's (CLASSPATH, JAVA_TOOL_OPTIONS, PGDATA ...) may change what the servers do.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "TZ": "UTC"}


class ServerProcess:
    """A server from its start to its end; a guard process stops it if this process dies first."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        directory: Path,
        log_file: Path,
        polite: signal.Signals,
        user: pwd.struct_passwd | None = None,
    ) -> None:
        """Start `command` in `directory`, as `user` if given, with its output appended to `log_file`."""
        self.name = name
        self.log_file = log_file
        self._polite = polite
        with log_file.open("ab") as output:
            self._server = subprocess.Popen(  # noqa: S603 - the command is ours
                command,
                cwd=directory,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal goes to the owner only, which stops its servers in order.
                start_new_session=True,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        guard = [sys.executable, "-I", "-S", GUARD, os.getpid(), self._server.pid, int(polite)]
        self._guard = subprocess.Popen(  # noqa: S603 - the command is ours
            [str(part) for part in guard], start_new_session=True, stdin=subprocess.DEVNULL
        )
        log.info("embedded.server.started", extra={"server": name, "pid": self.pid})

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def is_running(self) -> bool:
        return self._server.poll() is None

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Return when the server is ready; StackError, with the end of its log, if it ends or takes longer."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_running:
                code = self._server.returncode
                raise StackError(f"{self.name} ended while starting (exit code {code}). {self._log_tail()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} was not ready after {timeout_s:.0f} s. {self._log_tail()}")
            time.sleep(POLL_S)

    def ask_to_stop(self, number: signal.Signals | None = None) -> None:
        """Send the server `number`, or else its stop signal, without waiting for its end."""
        if self.is_running:
            self._server.send_signal(number or self._polite)

    def wait(self) -> None:
        """Wait for the end of a server that was asked to stop; it gets SIGKILL after `STOP_TIMEOUT_S`."""
        try:
            self._server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("embedded.server.killed", extra={"server": self.name, "after_s": STOP_TIMEOUT_S})
            self._server.kill()
            self._server.wait()
        self._guard.kill()
        self._guard.wait()

    def _log_tail(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        return "\n".join([f"The end of {self.log_file}:", *lines[-LOG_TAIL_LINES:]])


def run_program(
    command: Sequence[str], *, directory: Path, user: pwd.struct_passwd | None = None, statements: str = ""
) -> str:
    """Run a program to its end, with `statements` as its input; returns what it wrote to stderr.

    Raises StackError, with what it wrote, if it fails or takes longer than `PROGRAM_TIMEOUT_S`.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the command is ours
            command,
            check=True,
            cwd=directory,
            env=ENVIRONMENT,
            input=statements,
            capture_output=True,
            text=True,
            timeout=PROGRAM_TIMEOUT_S,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    except subprocess.CalledProcessError as exc:
        raise StackError(f"{command[0]} failed: {exc.stderr or exc.stdout}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise StackError(f"{command[0]} failed: {exc}") from exc
    return done.stderr


def stop_orphan(pid_file: Path, mark: str, polite: signal.Signals, progress: Callable[[str], None]) -> None:
    """Stop the server that an earlier owner of the directory left behind, if there is one.

    It is the process with the pid in the first line of `pid_file`, if its command line holds `mark`.
    A file whose pid belongs to another process by now (pids are reused soon in containers) is removed: a server would
    take that process for itself and refuse to start.
    """
    try:
        pid = int(pid_file.read_text().splitlines()[0])
        process = psutil.Process(pid)
        command = process.cmdline()
    except (FileNotFoundError, IndexError, ValueError, psutil.Error):
        return
    if mark not in command:
        pid_file.unlink()
        return
    progress(f"stopping process {pid} ({process.name()}), left behind by an earlier run ...")
    # Its guard may be stopping it at this moment, too.
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(polite)
        try:
            process.wait(STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
