"""What is seen at once is what all the looks at an unusual job would find."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblog.projections.projector.event_batch import Record
from joblog.projections.replay.verification.aside import gaps
from joblog.projections.replay.verification.audit import audit
from joblog.projections.replay.verification.compare import Ends, count_ends, expected_history
from joblog.projections.replay.verification.log_pass import LogPass
from joblog.projections.replay.verification.regular import regular
from joblog.projections.replay.verification.trace import Trace

from tests.support.projection_events import Story, records

STEPS = ("enqueued", "processing", "succeeded", "failed", "deleted", "parameter", "traversed", "again")


def told(steps: list[str]) -> Story:
    story = Story(lane=2, random=5).enqueued()
    for number, step in enumerate(steps):
        match step:
            case "parameter":
                story.parameter_set("a", number)
            case "traversed":
                story.failed(traversed=True)
            case "again":
                story.created_again().enqueued()
            case _:
                getattr(story, step)()
    return story


def traced(log: list[Record]) -> Trace:
    with TemporaryDirectory() as directory:
        one = LogPass(Path(directory), "events", "t.", range(4))
        for record in log:
            one.take(record)
        one.checkpoint()
        ((_, [trace]),) = one.runs.merged()
    return trace


def commanded(record: Record) -> Record:
    value = (record.value or b"").replace(b'"datacontenttype"', b'"causationid":"cli-1","datacontenttype"')
    return Record(record.lane, record.offset, record.log_ms, value)


@settings(max_examples=120, deadline=None)
@given(
    steps=st.lists(st.sampled_from(STEPS), max_size=8),
    commands=st.sets(st.integers(0, 8)),
    damage=st.lists(st.tuples(st.sampled_from(["drop", "repeat", "lane"]), st.integers(0, 8)), max_size=2),
)
def test_a_regular_trace_has_no_finding_and_the_history_and_ends_that_are_given(
    steps: list[str], commands: set[int], damage: list[tuple[str, int]]
) -> None:
    log = [commanded(one) if n in commands else one for n, one in enumerate(records(told(steps)))]
    for what, place in damage:
        at = place % len(log)
        if what == "drop" and len(log) > 1:
            del log[at]
        elif what == "repeat":
            log.insert(at, log[at])
        elif what == "lane":
            log[at] = Record(1, log[at].offset, log[at].log_ms, log[at].value)
    log = [Record(one.lane, n, one.log_ms, one.value) for n, one in enumerate(log)]
    trace = traced(log)
    found = regular(trace)
    if found is None:
        return
    ends = Ends()
    count_ends(trace, ends)
    assert list(audit(trace, {})) == []
    assert list(gaps(trace)) == []
    assert (found.events, found.digests) == expected_history(trace)
    assert Ends(found.ends) == ends


@pytest.mark.parametrize(
    "steps",
    [
        [],
        ["processing", "succeeded"],
        ["processing", "traversed", "enqueued", "processing", "failed"],
        ["parameter", "processing", "parameter", "deleted"],
    ],
)
def test_the_lives_of_most_jobs_are_regular(steps: list[str]) -> None:
    assert regular(traced(records(told(steps)))) is not None
