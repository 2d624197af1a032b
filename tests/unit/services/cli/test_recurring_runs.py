"""What `joblog recurring` shows of jobs and of occurrences without one."""

from pathlib import Path

import pytest
from joblog.services.cli.commands.recurring.runs import print_with_skipped, with_runs, with_states
from joblog.services.cli.context import Output
from joblog.services.settings.model import Settings

JOB = "00aa1ebf-3759-8003-b6cc-e905a6c5079c"
SKIPPED = [
    {"occurrence": "2026-01-01T00:01:00Z", "reason": "overlap", "at": "2026-01-01T00:01:01Z"},
    {"occurrence": "2026-01-01T00:02:00Z", "reason": "skip_next", "at": "2026-01-01T00:02:01Z"},
]


def test_what_was_left_out_is_a_table_below_the_latest_first(capsys: pytest.CaptureFixture[str]) -> None:
    print_with_skipped({"id": "a", "skipped": SKIPPED}, Output.TABLE)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["id", "a"],
        [],
        ["skipped"],
        ["occurrence", "reason", "at"],
        ["2026-01-01T00:02:00Z", "skip_next", "2026-01-01T00:02:01Z"],
        ["2026-01-01T00:01:00Z", "overlap", "2026-01-01T00:01:01Z"],
    ]
    print_with_skipped({"id": "a"}, Output.TABLE)
    assert capsys.readouterr().out == "id  a\n"


def test_json_has_them_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_with_skipped({"id": "a", "skipped": SKIPPED[:1]}, Output.JSON)
    assert '"skipped":[{"occurrence":"2026-01-01T00:01:00Z","reason":"overlap"' in capsys.readouterr().out


def test_without_postgres_nothing_is_asked_and_nothing_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBLOG_POSTGRES__DSN", raising=False)
    row = {"id": "a", "last_job_id": JOB}
    assert with_states(Settings.load(), [row]) == [{**row, "last_state": None}]
    assert with_runs(Settings.load(), row) == {**row, "last_state": None, "runs": None}
    assert capsys.readouterr().err == ""
