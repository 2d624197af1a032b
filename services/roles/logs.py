"""Logs: one line for each event on stderr, as text on a terminal and as JSON elsewhere."""

import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, TextIO

import structlog
from joblog.services.tasks.context import JobLogFilter

Format = Literal["auto", "console", "json"]

#: Loggers of libraries whose INFO lines are not useful here.
_QUIET: Final = ("aiokafka", "alembic", "asyncio", "faust", "jgo", "mode")
#: A client that cannot reach its broker logs that twenty times a second; it is passed on once in this many seconds.
REPEAT_S: Final = 10.0
_REMEMBERED_MAX: Final = 1_000
#: Only lines of these loggers (librdkafka's and Joblog's own) are suppressed when they repeat, never those of users.
_OURS: Final = "joblog."
#: Parts of a text in which two repetitions may differ: numbers, and what librdkafka adds in parentheses.
_VARYING: Final = re.compile(r"\([^)]*\)|\d+")
_LIBRDKAFKA: Final = "joblog.librdkafka"
_COORDINATOR: Final = re.compile(r"GETPID .*: (Not coordinator|Coordinator [a-z ]+): retrying")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class Repeats(logging.Filter):
    """Passes a repeated warning or error once per `REPEAT_S`; the next one says how many were suppressed.

    Lines with a traceback or about a job are never suppressed, nor lines that differ in one of their own numbers.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        ours = record.levelno >= logging.WARNING and record.name.startswith(_OURS)
        if not ours or record.exc_info or "job_id" in extra:
            return True
        texts = {name: _VARYING.sub("", value) if isinstance(value, str) else value for name, value in extra.items()}
        line, now = f"{record.name} {_VARYING.sub('', record.getMessage())} {texts}", self._clock()
        since, left_out = self._passed.get(line, (-math.inf, 0))
        if now - since < REPEAT_S:
            self._passed[line] = since, left_out + 1
            return False
        if len(self._passed) >= _REMEMBERED_MAX:
            self._passed.clear()
        self._passed[line] = now, 0
        if left_out:
            record.repeats_left_out = left_out
        return True


class Starting(logging.Filter):
    """Lowers to DEBUG what librdkafka logs in a healthy start: a coordinator is loading or has moved."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != _LIBRDKAFKA or not _COORDINATOR.match(record.getMessage()):
            return True
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger().isEnabledFor(logging.DEBUG)


class Lines(logging.StreamHandler[TextIO]):
    """Writes to a stream. Never raises, as a log line is not worth what its caller does: a task may close stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a method of logging's
        """Say on stderr that a line could not be written, if there is one."""
        with suppress(ValueError, AttributeError):  # it is closed, or something else; OSError is passed over anyway
            super().handleError(record)


def configure_logs(format_: Format, level: str, role: str) -> None:
    """Render all of stdlib logging; `auto` is the console's form if stderr is a terminal.

    Fields: ts, level, event, role, logger, what the call says in `extra`, and in a running job job_id,
    attempt, queue and task.
    """
    as_json = format_ == "json" or (format_ == "auto" and not sys.stderr.isatty())
    handler = Lines(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
                _adding_role(role),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_json_processors() if as_json else _console_processors()),
            ],
        )
    )
    handler.addFilter(Starting())
    handler.addFilter(Repeats())
    handler.addFilter(JobLogFilter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)


def _adding_role(role: str) -> structlog.typing.Processor:
    def add(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        first = {name: event.pop(name, None) for name in ("ts", "level", "event")}
        return {**first, "role": role, **event}

    return add


# Tracebacks are text, without the values of variables: those may be secrets.
def _json_processors() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
    ]


def _console_processors() -> list[structlog.typing.Processor]:
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return [
        structlog.dev.ConsoleRenderer(
            colors=colors,
            timestamp_key="ts",
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]
