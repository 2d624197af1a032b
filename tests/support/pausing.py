"""Pause a process, as a debugger, a suspended machine or a container without CPU time does."""

import os
import signal
import subprocess


def pause(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """Send SIGSTOP; returns when every thread has stopped: on a busy machine some run on for a while."""
    process.send_signal(signal.SIGSTOP)
    state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state is not None
    assert state.si_code == os.CLD_STOPPED, f"it has ended before it could be paused: {state}"


def resume(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGCONT)
