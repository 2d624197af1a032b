"""What a demonstration looks like on terminals."""

import io
from datetime import UTC, datetime

import pytest
from joblog.projections.monitor.models import HistoryEntry, JobDetails
from joblog.services.detection.console import Printer
from joblog.services.detection.report import Result
from joblog.services.detection.stories import STORIES, plan
from joblog.streams.contract.states import State
from rich.console import Console

AT = datetime(2026, 1, 1, tzinfo=UTC)
COUNTS = {"counts": {"faces": 3, "blobs": 20, "shapes": 11}}


def job(state: State, **data: object) -> JobDetails:
    event = {"version": 1, "attempt": 1, "lane": 0, "log_offset": 1, "type": "job.x", "traversed": False}
    entry = HistoryEntry.model_validate({**event, "state": state, "at": AT, "reason": None, "data": data})
    about = {"retry": 0, "priority": 0, "queue": "q", "task": "t", "created_at": AT, "changed_at": AT}
    lists = {"history": (entry,), "continuations": (), "rejected": (), "spec": None, "parameters": {}}
    return JobDetails.model_validate(
        {"id": "j", "state": state, "lane": 0, "version": 1, "attempt": 1, "log_offset": 1, **about, **lists, **data}
    )


@pytest.mark.parametrize("width", [80, 120])
def test_the_runs_are_named_in_full_and_summed_up_at_the_end(width: int) -> None:
    done = job(State.SUCCEEDED, result=COUNTS, duration_ms=1.0)
    runs = plan(len(STORIES))
    out = io.StringIO()
    Printer(Console(file=out, width=width)).results([Result(run, done, done) for run in runs])
    details, _, summary = out.getvalue().partition("\nThe runs\n")
    assert details.count("detection") == len(runs)
    assert all(run.run_id in summary for run in runs)
    assert "…" not in summary
    assert "not as expected: the detection is Succeeded, not Failed" in " ".join(summary.split()) or width == 80
    assert [line.split()[4] for line in summary.splitlines() if line.startswith("  run-")] == [
        "ok" if run.story.expected is State.SUCCEEDED and run.story.attempts == 1 else "no" for run in runs
    ]
