import json
from datetime import UTC, datetime

import pytest
from joblog.services.cli_context import Output
from joblog.services.output import print_document, print_rows, shown
from joblog.streams.states import State

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


def test_times_are_short_and_in_utc() -> None:
    assert shown(datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)).plain == "2026-01-02 03:04:05.678Z"
