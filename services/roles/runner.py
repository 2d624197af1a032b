"""The process around a role: signals, HTTP, logs, exit codes."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Final, Protocol

from joblog.services.roles.http import Build, HttpServer, application
from joblog.services.roles.kafka_errors import refused
from joblog.services.roles.logs import configure_logs
from joblog.services.settings.model import Settings
from joblog.streams.errors import Fenced, JoblogError, SettingsError, TopicsError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters
from prometheus_client import ProcessCollector, disable_created_metrics

log = logging.getLogger(__name__)

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
#: EX_TEMPFAIL of sysexits.h: another process of this name took over, and a restart would fence that one.
FENCED: Final = 75
INTERRUPTED: Final = 130


class Runnable(Protocol):
    """A role: works until `stop` is set, then ends in order."""

    def run(self, stop: threading.Event) -> None: ...


Builder = Callable[[Meters, Health], Runnable]


def run_role(role: str, build: Builder, settings: Settings) -> int:
    """Run a role until SIGTERM or SIGINT, and return the exit code; a second signal ends the process immediately."""
    configure_logs(settings.logs.format, settings.logs.level, role)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    chosen = settings.metrics
    meters = Meters(role=role, queues_max=chosen.queues_max, tasks_max=chosen.tasks_max)
    health, stop = Health(role), threading.Event()
    ProcessCollector(registry=meters.registry)
    meters.set("joblog_build_info", 1, *Build.current(), role)
    meters.set("joblog_lanes_configured", settings.lanes)
    try:
        with stopped_by_signals(stop), ExitStack() as stack:
            if settings.http.enabled:
                server = HttpServer(application(meters, health), settings.http.host, settings.http.port)
                stack.enter_context(server)
                log.info("http.listening", extra={"url": server.url})
            runnable = build(meters, health)
            log.info("process.started", extra={"pid": os.getpid(), **Build.current()._asdict()})
            runnable.run(stop)
    except Exception as exc:  # noqa: BLE001 - it is logged, and the process ends
        return _failed(exc)
    log.info("process.stopped")
    return OK


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets `stop`; the second ends the process immediately.

    A handler interrupts the main thread wherever it is: within `stop.wait()`, while it holds the event's lock, or
    while it writes a log line. So the handler takes no lock: it puts a message into a queue, and a thread sets
    `stop`.
    """
    received: SimpleQueue[bool] = SimpleQueue()  # the one queue whose `put` may interrupt itself

    def set_stop() -> None:
        while received.get():
            stop.set()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        received.put(True)
        os.write(
            2,
            f"stopping on {signal.Signals(number).name}; send it again to stop immediately\n".encode(),
        )

    listener = threading.Thread(target=set_stop, name="signals", daemon=True)
    listener.start()
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        received.put(False)
        listener.join()


def _failed(error: Exception) -> int:
    """Log why the role ended, with a traceback unless it is an error that Joblog raises on purpose."""
    error = refused(error) or error
    if isinstance(error, JoblogError):
        log.error("process.failed", extra={"error": type(error).__name__, "reason": str(error)})
    else:
        log.error("process.crashed", exc_info=error)
    match error:
        case Fenced():
            return FENCED
        case SettingsError() | TopicsError():
            return USAGE
        case _:
            return ERROR
