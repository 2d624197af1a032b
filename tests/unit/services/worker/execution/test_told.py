"""What a run says of itself, until it is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.tasks.context import JobContext
from joblog.services.worker.execution.told import (
    BYTES_MAX,
    EVERY_S,
    LINE_BYTES_MAX,
    REPORTS_MAX,
    THEN_EVERY_S,
    Taken,
    Told,
)
from joblog.streams.contract.fields import LINES_MAX
from joblog.streams.contract.wire import RunJob
from msgspec import Raw

#: Stands for a line that is too long.
LONG = "(long)"
CUT = "(lines dropped here, more than a report holds"
JOB = RunJob(job_id="j", lease=1, attempt=1, lane=0, task="t", queue="q", spec=Raw(b"{}"), ready_ms=1)


def test_the_last_progress_and_all_lines_are_taken_once() -> None:
    told = Told()
    told.progressed(0.1, "first")
    told.logged("one\ntwo")
    told.progressed(0.4, "page 40 of 100")
    told.logged("")
    assert told.take(5.0) == Taken(0.4, "page 40 of 100", ("one", "two", ""))
    assert told.take(6.0) is None


@given(st.lists(st.text(max_size=50) | st.just(LONG), max_size=300))
def test_a_report_is_bounded_and_says_how_many_lines_are_missing(given_texts: list[str]) -> None:
    texts = ["é" * LINE_BYTES_MAX if text == LONG else text for text in given_texts]
    told, lines = Told(), [line for text in texts for line in text.splitlines() or [""]]
    for text in texts:
        told.logged(text)
    taken = told.take(0.0)
    if not lines:
        assert taken is None
        return
    assert taken is not None
    assert len(taken.lines) <= LINES_MAX
    assert sum(len(line.encode()) for line in taken.lines) <= BYTES_MAX + 100
    is_cut = taken.lines[0].startswith(CUT)
    kept = taken.lines[is_cut:]
    dropped = len(lines) - len(kept)
    assert is_cut == (dropped > 0)
    assert not is_cut or taken.lines[0] == f"{CUT}: {dropped})"
    ends = [line[:10].replace("\0", "?") for line in lines[dropped:]]
    assert [line[:10].replace("\ufffd", "?") for line in kept] == [end.replace("\ufffd", "?") for end in ends]


@pytest.mark.parametrize(("line", "kept"), [("short", LINES_MAX - 1), ("x" * LINE_BYTES_MAX, 16)])
def test_the_oldest_lines_go_where_there_are_too_many_or_too_long_ones(line: str, kept: int) -> None:
    told = Told()
    for number in range(200):
        told.logged(f"{number:03d}{line}")
    taken = told.take(0.0)
    assert taken is not None
    assert taken.lines[0] == f"{CUT}: {200 - kept})"
    assert [text[:3] for text in taken.lines[1:]] == [f"{number:03d}" for number in range(200 - kept, 200)]


def test_what_postgres_cannot_keep_is_replaced() -> None:
    told = Told()
    told.logged("a\0b\ud800")
    told.progressed(1.0, "\0")
    assert told.take(0.0) == Taken(1.0, "\ufffd", ("a\ufffdb\ufffd",))


def test_reports_are_a_second_apart_and_after_a_thousand_a_minute() -> None:
    told = Told()
    for number in range(1, REPORTS_MAX + 1):
        told.logged("line")
        assert told.due_at <= number * EVERY_S
        assert told.take(number * EVERY_S) is not None
    assert told.due_at == REPORTS_MAX * EVERY_S + THEN_EVERY_S


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_progress_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        JobContext(JOB, "w").progress(share)


def test_without_a_worker_a_run_speaks_to_pythons_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        JobContext(JOB, "w").progress(0.5, "half")
        JobContext(JOB, "w").log("a line")
    assert [record.getMessage() for record in caplog.records] == ["job.progressed", "job.logged"]
