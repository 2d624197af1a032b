import json
import logging
import sys
import warnings
from collections.abc import Iterator
from io import StringIO

import pytest
from joblog.services.roles.logs import REPEAT_S, Repeats, configure_logs
from joblog.services.tasks.context import CURRENT, JobContext
from joblog.streams.contract.wire import NO_RAW, RunJob

log = logging.getLogger("joblog.test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_json_has_the_event_its_role_and_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "INFO", "elector")
    log.info("elector.lanes", extra={"lanes": [1, 2]})
    log.debug("not.this")
    (line,) = lines(capsys)
    assert list(line)[:4] == ["ts", "level", "event", "role"]
    assert {name: line[name] for name in line if name != "ts"} == {
        "level": "info",
        "event": "elector.lanes",
        "role": "elector",
        "logger": "joblog.test",
        "lanes": [1, 2],
    }
    assert str(line["ts"]).endswith("Z")


def test_it_is_json_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("auto", "INFO", "elector")
    log.info("x")
    assert lines(capsys)[0]["event"] == "x"


def test_the_console_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("console", "INFO", "elector")
    log.info("elector.lanes", extra={"lanes": [1, 2]})
    err = capsys.readouterr().err
    assert "elector.lanes" in err
    assert "lanes=[1, 2]" in err
    assert "\x1b" not in err


def refuse(password: str) -> None:
    raise ValueError(f"a password of {len(password)} characters")


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_do_not_tell_the_values_of_variables(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logs(form, "INFO", "elector")  # type: ignore[arg-type]
    try:
        refuse("hunter" + str(2))
    except ValueError:
        log.exception("process.crashed")
    err = capsys.readouterr().err
    assert "ValueError: a password of 7 characters" in err
    assert "hunter2" not in err


def test_a_job_that_logs_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "INFO", "worker")
    job = RunJob(job_id="j", lease=2, attempt=1, lane=0, task="a.b", queue="q", spec=NO_RAW, ready_ms=0)
    token = CURRENT.set(JobContext(job, "w"))
    try:
        log.info("hello")
    finally:
        CURRENT.reset(token)
    (line,) = lines(capsys)
    assert (line["job_id"], line["attempt"], line["queue"], line["task"]) == ("j", 1, "q", "a.b")


def test_warnings_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "INFO", "elector")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "DeprecationWarning: old" in str(lines(capsys)[0]["event"])


GETPID = "GETPID [x#producer-1] [thrd:main]: Failed to acquire idempotence PID from broker b:1/1: Broker: "


@pytest.mark.parametrize("reason", ["Coordinator load in progress", "Not coordinator", "Coordinator not available"])
@pytest.mark.parametrize(("level", "told"), [("INFO", []), ("DEBUG", ["debug"])])
def test_a_coordinator_that_is_loading_is_nothing_to_be_warned_of(
    capsys: pytest.CaptureFixture[str], level: str, told: list[str], reason: str
) -> None:
    configure_logs("json", level, "elector")
    kafka = logging.getLogger("joblog.librdkafka")
    kafka.warning(f"{GETPID}{reason}: retrying")
    assert [line["level"] for line in lines(capsys)] == told
    kafka.warning(GETPID + "Cluster authorization failed: not retrying")
    assert [line["level"] for line in lines(capsys)] == ["warning"]


def record(level: int, message: str, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "joblog.x", "levelno": level, "msg": message, **extra})


def test_a_warning_repeated_at_once_is_left_out_and_counted() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    assert repeats.filter(record(logging.WARNING, "failed (after 3 ms)", reason="port 1"))
    assert not repeats.filter(record(logging.WARNING, "failed (after 4 ms, 2 times)", reason="port 2"))
    assert not repeats.filter(record(logging.WARNING, "failed (after 5 ms)", reason="port 3"))
    assert repeats.filter(record(logging.WARNING, "failed (after 3 ms)", reason="another"))
    now = REPEAT_S
    passed = record(logging.WARNING, "failed (after 3 ms)", reason="port 1")
    assert repeats.filter(passed)
    assert vars(passed)["repeats_left_out"] == 2


def test_nothing_that_users_log_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "INFO", "worker")
    payments = logging.getLogger("shop.payments")
    for order in (17, 18, 18):
        payments.error("payment of order %d failed", order)
    assert [line["event"] for line in lines(capsys)] == [
        "payment of order 17 failed",
        "payment of order 18 failed",
        "payment of order 18 failed",
    ]


def test_lines_about_jobs_or_places_and_tracebacks_are_no_repeats() -> None:
    repeats = Repeats(lambda: 0.0)
    told = [record(logging.WARNING, "record.parked", offset=offset) for offset in range(3)]
    told += [record(logging.WARNING, "run.result_omitted", job_id=f"{n}") for n in range(3)]
    told += [record(logging.ERROR, "crashed", exc_info=(ValueError, ValueError(f"{n}"), None)) for n in range(3)]
    assert all(map(repeats.filter, told))


def test_what_is_no_warning_may_repeat() -> None:
    repeats = Repeats(lambda: 0.0)
    assert all(repeats.filter(record(logging.INFO, "run.failed")) for _ in range(3))


def test_remembering_repeats_has_an_end() -> None:
    repeats = Repeats(lambda: 0.0)
    names = ["".join(chr(97 + int(digit)) for digit in str(n)) for n in range(2_500)]
    assert all(repeats.filter(record(logging.WARNING, name)) for name in names)
    assert len(repeats._passed) <= 1_000


def test_a_line_that_cannot_be_written_does_not_end_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logs("json", "INFO", "worker")
    stream.close()
    logging.getLogger("any").warning("lost")
    monkeypatch.setattr(sys, "stderr", None)
    logging.getLogger("any").warning("lost")
