"""Keeps Joblog's roles running as child processes: guarded, restarted when they die, stopped in order."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import IO, Final

from joblog.services.embedded.ports import HOST
from joblog.services.embedded.server import GUARD
from joblog.services.roles.runner import FENCED, USAGE
from joblog.streams.errors import StackError

#: Delay before a role is started again, after it ended once, twice, and so on in a row.
BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
#: A role that ran this long has recovered: its next end counts as the first.
RECOVERED_S: Final = 60.0
STOP_TIMEOUT_S: Final = 45.0
_PROBE_TIMEOUT_S: Final = 2.0
#: Exit codes after which a restart would end the same way.
_HOPELESS: Final = frozenset({USAGE, FENCED})

Write = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class RoleCommand:
    """A `joblog` command that runs a role, and the port on which it serves HTTP."""

    name: str
    arguments: Sequence[str]
    http_port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http_port}"


@dataclass(slots=True)
class _Child:
    role: RoleCommand
    process: subprocess.Popen[str] | None = None
    guard: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    ends: int = 0
    reader: threading.Thread | None = field(default=None, repr=False)
    last_line: str = ""


class Supervisor:
    """Starts roles in the given order and stops them in reverse. Used from one thread."""

    def __init__(
        self,
        roles: Sequence[RoleCommand],
        environment: Mapping[str, str],
        write: Write,
        command: Sequence[str] = (sys.executable, "-m", "joblog.services.cli"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`write` is called with a role's name and a line of its log, from one thread for each role."""
        self._children = [_Child(role) for role in roles]
        self._environment = dict(environment)
        self._write = write
        self._command = tuple(command)
        self._clock = clock

    def check(self) -> None:
        """Start roles that are due. Raises StackError when a role ended in a way that a restart would repeat."""
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._ended(child, child.process.returncode)
            if child.process is None and self._clock() >= child.restart_at:
                self._start(child)

    def unready(self) -> dict[str, str]:
        """The roles that are not ready, and why."""
        found = {child.role.name: _reason(child.role) for child in self._children}
        return {name: reason for name, reason in found.items() if reason}

    def pids(self) -> dict[str, int]:
        """The ids of the running processes, by role."""
        return {child.role.name: child.process.pid for child in self._children if child.process is not None}

    def stop(self) -> None:
        """Stop all, the last first, one after the other: workers must be able to report to electors."""
        for child in reversed(self._children):
            self._stop(child)

    def _start(self, child: _Child) -> None:
        role = child.role
        child.process = subprocess.Popen(  # noqa: S603 - the command is ours
            [*self._command, *role.arguments, "--http-port", str(role.http_port)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A Ctrl-C in the terminal must reach only this process, which stops the roles in order.
            start_new_session=True,
        )
        guard = (sys.executable, "-I", "-S", GUARD, os.getpid(), child.process.pid, int(signal.SIGTERM))
        child.guard = subprocess.Popen(  # noqa: S603 - the command is ours
            [str(part) for part in guard], start_new_session=True, stdin=subprocess.DEVNULL
        )
        assert child.process.stdout is not None
        child.reader = threading.Thread(target=self._read, args=(child, child.process.stdout), daemon=True)
        child.reader.start()
        child.started_at = self._clock()

    def _read(self, child: _Child, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                child.last_line = line.rstrip("\n")
                self._write(child.role.name, child.last_line)

    def _ended(self, child: _Child, code: int) -> None:
        self._clean_up(child)
        if code in _HOPELESS:
            raise StackError(f"{child.role.name} ended with code {code}: {child.last_line or 'no output'}")
        if self._clock() - child.started_at > RECOVERED_S:
            child.ends = 0
        wait_s = BACKOFF_S[min(child.ends, len(BACKOFF_S) - 1)]
        child.ends += 1
        child.restart_at = self._clock() + wait_s
        self._write(child.role.name, f"ended with code {code}; starts again in {wait_s:g} s")

    def _stop(self, child: _Child) -> None:
        if child.process is None:
            return
        child.process.terminate()
        try:
            child.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._write(child.role.name, f"did not stop within {STOP_TIMEOUT_S:g} s: killed")
            child.process.kill()
            child.process.wait()
        self._clean_up(child)

    def _clean_up(self, child: _Child) -> None:
        """After a process has ended: end its guard, and wait until its last lines are written."""
        if child.guard is not None:
            child.guard.kill()
            child.guard.wait()
        if child.reader is not None:
            child.reader.join(_PROBE_TIMEOUT_S)
        child.process = child.guard = child.reader = None


def _reason(role: RoleCommand) -> str:
    """Why a role is not ready; empty if it is. Does not use a proxy that the environment may name."""
    with closing(HTTPConnection(HOST, role.http_port, timeout=_PROBE_TIMEOUT_S)) as connection:
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            if answer.status == HTTPStatus.OK:
                return ""
            return json.loads(answer.read())["reason"] or answer.reason
        except OSError as exc:
            return f"does not answer on HTTP: {exc}"
        except (HTTPException, ValueError, TypeError, LookupError):
            return f"port {role.http_port} seems to be used by another program"
