"""Stop a server when the process that started it is gone, however that ended (SIGKILL, a crash).

Run as a file, by the owner: `python -I -S guard.py OWNER_PID SERVER_PID SIGNAL`. It imports
nothing of Joblog, so it starts at once and stays small. Linux could do the same by PR_SET_PDEATHSIG,
but that fires when the starting *thread* ends, and it needs code between fork and exec.
"""

import contextlib
import os
import signal
import sys
import time

POLL_S = 0.5
PATIENCE_S = 30.0


def is_running(pid: int) -> bool:
    """Whether the process exists (a zombie does)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def guard(owner: int, server: int, polite: int, *, poll_s: float = POLL_S, patience_s: float = PATIENCE_S) -> None:
    """Wait for the end of the owner, then stop the server: by signal `polite`, or SIGKILL after `patience_s`."""
    # A child whose parent died has another parent at once, even before the dead one is reaped.
    while os.getppid() == owner:
        if not is_running(server):
            return
        time.sleep(poll_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, polite)
        deadline = time.monotonic() + patience_s
        while is_running(server) and time.monotonic() < deadline:
            time.sleep(poll_s)
        os.kill(server, signal.SIGKILL)


if __name__ == "__main__":
    guard(*(int(argument) for argument in sys.argv[1:4]))
