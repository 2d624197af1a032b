"""The end of a worker's process, which threads that a task has left behind must not delay."""

import atexit
import logging
import os
import sys
import threading
from typing import Final

log = logging.getLogger(__name__)

#: How long threads may go on when the worker has ended.
THREADS_S: Final = 1.0


def leave_within(seconds: float, code: int) -> None:
    """End the process with this code if its threads keep it alive for so long; call it last.

    At exit Python waits for the threads of executors, and so for `asyncio.to_thread`, however long they take: they
    are not daemons, even if a daemon has started them. `atexit` functions are called after that, and are waited for.
    """
    joined = threading.Event()
    atexit.register(joined.set)  # what was registered last is called first

    def watch() -> None:
        if not joined.wait(seconds):
            try:
                log.error("worker.threads_left", extra={"threads": [thread.name for thread in threading.enumerate()]})
                logging.shutdown()
                sys.stdout.flush()
            finally:  # a task may have closed or replaced the streams
                os._exit(code)

    threading.Thread(target=watch, name="leave", daemon=True).start()
