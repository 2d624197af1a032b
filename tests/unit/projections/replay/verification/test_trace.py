from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path

import pytest
from joblog.projections.projector.event_batch import Record
from joblog.projections.replay.sorted_runs import SortedRuns
from joblog.projections.replay.verification.log_pass import LogPass
from joblog.projections.replay.verification.trace import Trace, joined, steps_of
from joblog.streams.errors import ProjectionError
from msgspec import msgpack

from tests.support.projection_events import BEGINNING, Story, records


def traced(directory: Path, runs: list[list[Record]]) -> Trace:
    """The trace of one job whose events come in these runs."""
    directory.mkdir()
    one = LogPass(directory, "events", "t.", [0])
    for run in runs:
        for record in run:
            one.take(record)
        one.checkpoint()
    ((_, parts),) = one.runs.merged()
    return reduce(joined, parts)


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_trace_is_the_same_wherever_it_is_cut(cut: int, tmp_path: Path) -> None:
    due = BEGINNING + timedelta(hours=1)
    story = Story(random=1, spec={"args": [], "priority": 3, "parameters": {"a": 1}}).enqueued()
    story.processing().failed(traversed=True).scheduled(due, retry=1).parameter_set("b", [2])
    story.enqueued(retry=1).processing().parameter_set("a", None).succeeded({"n": 1})
    log = records(story)
    assert traced(tmp_path / "cut", [log[:cut], log[cut:]]) == traced(tmp_path / "whole", [log])


@pytest.mark.parametrize("cut", range(1, 5))
def test_another_life_replaces_the_one_before_wherever_it_is_cut(cut: int, tmp_path: Path) -> None:
    story = Story(random=1).enqueued().processing().succeeded().created_again(queue="other").enqueued().processing()
    log = records(story)
    found = traced(tmp_path / "cut", [log[:cut], log[cut:]])
    assert found == traced(tmp_path / "whole", [log])
    assert (found.queue, found.version) == ("other", 2)


@pytest.mark.parametrize(("year", "hour"), [(1, -17_259_888), (1969, -8_760), (9999, 70_380_768)])
def test_an_event_of_any_time_has_a_step(year: int, hour: int, tmp_path: Path) -> None:
    story = Story(at=datetime(year, 1, 1, tzinfo=UTC), id=Story(random=1).id).enqueued()
    (step,) = steps_of(traced(tmp_path / "whole", [records(story)]))
    assert step.hour == hour


def test_a_version_that_no_table_holds_has_a_step(tmp_path: Path) -> None:
    story = Story(random=1, version=2**53 - 2).event("job.processing", "Processing", worker="w", lease=2**53 - 1)
    trace = traced(tmp_path / "whole", [records(story)])
    (step,) = steps_of(trace)
    assert (trace.version, trace.lease) == (2**53 - 1, 2**53 - 1)
    assert (step.version, step.lease) == (2**32 - 1, 2**32 - 1)


@pytest.mark.parametrize("text", [b"", b"?", msgpack.encode({"prefix": "t.", "lanes": "all"})])
def test_a_checkpoint_that_cannot_be_read_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.checkpoint").write_bytes(text)
    with pytest.raises(ProjectionError, match="another directory"):
        LogPass(tmp_path, "events", "t.", [0]).resume()


def test_runs_come_back_merged_by_key_in_their_order(tmp_path: Path) -> None:
    runs = SortedRuns(tmp_path, "numbers", int)
    runs.write([(b"c", 1), (b"a", 2)])
    runs.write([(b"b", 3), (b"a", 4)])
    assert list(runs.merged()) == [(b"a", [2, 4]), (b"b", [3]), (b"c", [1])]
