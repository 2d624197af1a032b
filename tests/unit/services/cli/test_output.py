import io
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from joblog.services.cli.context import Output
from joblog.services.cli.output import print_document, print_rows, shown
from joblog.streams.contract.states import State

ROWS = [{"id": "a", "state": State.FAILED, "more": 1}, {"id": "b", "state": None, "more": {"x": [1]}}]


def test_lists_as_json_are_one_whole_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, ("id",), Output.JSON)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"id": "a", "state": "Failed", "more": 1},
        {"id": "b", "state": None, "more": {"x": [1]}},
    ]


def test_tables_have_the_columns_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, ("id", "state"), Output.TABLE)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["id", "state"], ["a", "Failed"], ["b", "-"]]


def test_long_values_are_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"a": "x" * 300, "b": "y" * 300}], ("a", "b"), Output.TABLE)
    assert "x" * 300 in capsys.readouterr().out


def test_a_document_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    print_document({"at": datetime(2026, 1, 2, tzinfo=UTC), "n": None}, Output.JSON)
    assert json.loads(capsys.readouterr().out) == {"at": "2026-01-02T00:00:00Z", "n": None}


def test_a_document_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_document({"late_s": 0.5, "n": None}, Output.TABLE)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["late", "s", "0.5"], ["n", "-"]]


def test_what_the_log_holds_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("\x1b[31mred\x07").plain == "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"
    print_rows([{"a": "[bold]no markup[/bold]"}], ("a",), Output.TABLE)
    assert "[bold]no markup[/bold]" in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, columns: Sequence[str], *rows: dict[str, Any]
) -> list[str]:
    """The lines of a table on a terminal of this width, without colours."""
    terminal = Terminal()
    with monkeypatch.context() as there:
        there.setattr("sys.stdout", terminal)
        there.setenv("COLUMNS", str(width))
        there.setenv("TERM", "xterm")
        print_rows(rows, columns, Output.TABLE)
    return [re.sub(r"\x1b\[\d*m", "", line).rstrip() for line in terminal.getvalue().splitlines()]


JOB = {
    "id": "01a20a16-c2e7-8003-bee9-22a0ed6af0b6",
    "state": State.FAILED,
    "queue": "default",
    "task": "images.shrink",
    "attempt": 1,
    "reason": "ValueError: no luck " * 5,
}


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_what_people_copy_is_whole_on_any_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    head, first, *more = on_a_terminal(monkeypatch, width, tuple(JOB), JOB)
    assert head.startswith("id")
    assert first.startswith(str(JOB["id"]))
    assert "images.shrink" in "\n".join((first, *more))
    assert all(len(line) <= width for line in (head, first, *more))
    assert " ".join(" ".join((first, *more)).split()).count("no") == 5


def test_a_row_that_is_too_wide_goes_on_below(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_a_terminal(monkeypatch, 50, tuple(JOB), {**JOB, "reason": "late"}, {**JOB, "reason": None}) == [
        "id                                    state",
        f"{JOB['id']}  Failed",
        "  queue default  task images.shrink  attempt 1",
        "  reason late",
        f"{JOB['id']}  Failed",
        "  queue default  task images.shrink  attempt 1",
    ]


def test_names_stay_with_their_values_below_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = on_a_terminal(monkeypatch, 34, ("id", "state", "queue", "task"), {**JOB, "id": "a" * 30})
    assert lines[2:] == ["  state Failed  queue default", "  task images.shrink"]


def test_times_on_a_terminal_have_a_date_if_it_is_not_todays(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    rows = ({"at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)}, {"at": now})
    old, new = on_a_terminal(monkeypatch, 80, ("at",), *rows)[1:]
    assert old == "2026-01-02 03:04:05Z"
    assert new == f"{now:%H:%M:%SZ}" or datetime.now(UTC).date() != now.date()


def test_tables_in_a_pipe_have_a_line_for_each_row_and_no_blanks_at_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_rows([{"a": "x", "b": "long enough"}, {"a": "y\nz", "b": "short"}], ("a", "b"), Output.TABLE)
    print_document({"a": "x", "longer": "long enough"}, Output.TABLE)
    assert capsys.readouterr().out.splitlines() == [
        "a    b",
        "x    long enough",
        "y z  short",
        "a       x",
        "longer  long enough",
    ]


def test_names_are_listed_and_numbers_rounded() -> None:
    assert shown(["a", "b"]).plain == "a, b"
    assert shown([str(n) for n in range(13)]).plain == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more"
    assert shown([]).plain == "[]"
    assert shown(1.0442500006320188, "duration_ms").plain == "1"
    assert shown(409.6204, "late_s").plain == "409.62"


def test_times_are_short_and_in_utc() -> None:
    assert shown(datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)).plain == "2026-01-02 03:04:05.678Z"
