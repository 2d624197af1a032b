"""One server as a child process: started with a guard, stopped by signal, found again when orphaned."""

import logging
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import psutil

from joblog.streams.errors import StackError

log = logging.getLogger(__name__)

GUARD = Path(__file__).with_name("embedded_guard.py")
STOP_TIMEOUT_S = 60
POLL_S = 0.05
LOG_TAIL_LINES = 12
# Nothing of the user's (CLASSPATH, JAVA_TOOL_OPTIONS, PGDATA ...) may change what the servers do.
ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC"}


class ServerProcess:
    """A running server; the guard beside it ends it should this process die without doing so."""

    def __init__(
        self, name: str, server: subprocess.Popen[bytes], polite: signal.Signals, log_file: Path
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._server = server
        self._polite = polite
        command = [
            sys.executable,
            "-I",
            "-S",
            str(GUARD),
            str(os.getpid()),
            str(server.pid),
            str(int(polite)),
        ]
        self._guard = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        directory: Path,
        log_file: Path,
        polite: signal.Signals,
        user: pwd.struct_passwd | None = None,
    ) -> Self:
        """Start `command` in `directory`, as `user` if given, with its output appended to `log_file`."""
        with log_file.open("ab") as output:
            server = subprocess.Popen(
                command,
                cwd=directory,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for the owner, which stops its servers in order.
                start_new_session=True,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        log.info("embedded.server.started", extra={"server": name, "pid": server.pid})
        return cls(name, server, polite, log_file)

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def is_running(self) -> bool:
        return self._server.poll() is None

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Return when the server is ready; StackError with the end of its log if it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_running:
                raise StackError(
                    f"{self.name} ended while starting (exit code {self._server.returncode}). {self._tail()}"
                )
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} was not ready after {timeout_s:.0f} s. {self._tail()}")
            time.sleep(POLL_S)

    def signal(self, number: signal.Signals | None = None) -> None:
        """Ask the server to stop, without waiting; by its polite signal unless told otherwise."""
        if self.is_running:
            self._server.send_signal(number or self._polite)

    def wait(self) -> None:
        """Wait for the end of a server that was asked to stop; SIGKILL it after `STOP_TIMEOUT_S`."""
        try:
            self._server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("embedded.server.killed", extra={"server": self.name, "after_s": STOP_TIMEOUT_S})
            self._server.kill()
            self._server.wait()
        self._guard.kill()
        self._guard.wait()

    def _tail(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        return "\n".join([f"The end of {self.log_file}:", *lines[-LOG_TAIL_LINES:]])


def stop_orphan(pid_file: Path, mark: str, polite: signal.Signals, progress: Callable[[str], None]) -> None:
    """Stop the server that an earlier owner of the directory left behind, if there is one.

    It is the process with the pid in the first line of `pid_file`, if its command line holds `mark`.
    A pid that now belongs to another process is no server of ours: the file is stale and goes.
    """
    try:
        pid = int(pid_file.read_text().splitlines()[0])
        process = psutil.Process(pid)
        is_ours = any(mark in argument for argument in process.cmdline())
    except (FileNotFoundError, IndexError, ValueError, psutil.Error):
        return
    if not is_ours:
        pid_file.unlink()
        return
    progress(f"stopping {process.name()} (pid {pid}), left behind by an earlier run")
    process.send_signal(polite)
    try:
        process.wait(STOP_TIMEOUT_S)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT_S)
