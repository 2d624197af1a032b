import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.projections.projector.decode import JobFact
from joblog.projections.projector.event_batch import Entries, Known, Parked
from joblog.projections.projector.fold import JobRow, fold
from joblog.projections.replay.lives import expected_job
from joblog.streams.contract.states import State

from tests.support.log_comparison import by_job
from tests.support.projection_events import BEGINNING, WORKER, Story, placed, records


def folded(story: Story) -> JobRow:
    facts = [(record.offset, fact) for record, fact in by_job(records(story))[story.id]]
    return fold(facts, story.lane)


def test_a_job_that_succeeded() -> None:
    story = Story(lane=3).enqueued().processing().succeeded({"sum": 3})
    assert expected_job(folded(story)) == {
        "id": story.id,
        "lane": 3,
        "state": State.SUCCEEDED,
        "version": 3,
        "attempt": 1,
        "retry": 0,
        "priority": 0,
        "queue": "default",
        "task": "demo.add",
        "created_at": BEGINNING + timedelta(seconds=1),
        "changed_at": BEGINNING + timedelta(seconds=3),
        "due": None,
        "worker": WORKER,
        "lease": 2,
        "parent": None,
        "continue_on": None,
        "exception_type": None,
        "exception_message": None,
        "spec": {"args": [1, 2], "kwargs": {"unit": "m"}},
        "parameters": {},
        "log_offset": 2,
        "reason": None,
    }


def test_a_retry_waits_and_remembers_why() -> None:
    due = BEGINNING + timedelta(minutes=5)
    row = folded(
        Story().enqueued().processing().failed(traversed=True).scheduled(due, retry=1, reason="Retry 1 of 10")
    )
    assert (row.latest.state, row.retry, row.due) == (State.SCHEDULED, 1, due.isoformat())
    assert row.exception is not None
    assert (row.exception.type, row.exception.message) == ("builtins.ValueError", "no such row")


def test_a_run_keeps_the_number_of_its_retry() -> None:
    due = BEGINNING + timedelta(minutes=5)
    story = (
        Story().enqueued().processing().failed(traversed=True).scheduled(due, retry=1).enqueued(retry=1).processing()
    )
    row = folded(story)
    assert (row.latest.state, row.retry, row.due, row.latest.attempt) == (State.PROCESSING, 1, None, 2)


def test_a_parameter_leaves_the_state_as_it_was() -> None:
    story = Story(spec={"parameters": {"x": 1, "y": 2}}).enqueued(reason="go").parameter_set("x", 5)
    row = expected_job(folded(story))
    assert row["parameters"] == {"x": 5, "y": 2}
    assert (row["state"], row["version"], row["reason"]) == (State.ENQUEUED, 2, "go")
    assert row["changed_at"] == BEGINNING + timedelta(seconds=1)


def test_a_continuation_knows_its_parent_after_it_went_on() -> None:
    parent = Story().id
    row = folded(Story().awaiting(parent, "finished").enqueued())
    assert (row.parent, row.on, row.latest.state) == (parent, "finished", State.ENQUEUED)


def test_a_requeue_may_change_the_queue() -> None:
    story = Story().enqueued().deleted()
    story.queue = "other"
    story.enqueued()
    row = folded(story)
    assert (row.latest.queue, row.latest.state, row.spec is not None) == ("other", State.ENQUEUED, True)


def test_an_event_that_came_before_changes_nothing() -> None:
    story = Story().enqueued().processing().succeeded()
    story.values.append(story.values[1])
    facts = [(record.offset, fact) for record, fact in Entries(records(story)) if isinstance(fact, JobFact)]
    assert fold(facts).latest.state is State.SUCCEEDED
    assert fold(facts).offset == 2


def test_a_batch_keeps_every_event_and_one_row_for_each_job() -> None:
    first, second = Story().enqueued().processing(), Story().enqueued()
    batch = Entries(records(first, second)).build({})
    assert batch.jobs.keys() == {first.id, second.id}
    assert [(fact.job, fact.event.version) for _, fact in batch.history or ()] == [
        (first.id, 1),
        (first.id, 2),
        (second.id, 1),
    ]
    assert batch.parked == []


def test_a_hole_in_the_versions_is_remarked_and_passed_over() -> None:
    story = Story().enqueued().processing().succeeded()
    del story.values[1]
    batch = Entries(records(story)).build({})
    assert batch.jobs[story.id].latest.state is State.SUCCEEDED
    assert [(one.code, one.reason, one.record.offset) for one in batch.parked] == [
        ("version_gap", f"job {story.id} went from version 1 to 3", 1)
    ]


def test_known_versions_are_not_folded_again() -> None:
    story = Story().enqueued().parameter_set("x", 1).parameter_set("y", 2)
    batch = Entries(records(story)).build({story.id: Known(2, 1)})
    assert batch.jobs[story.id].first_version == 3
    assert list(batch.jobs[story.id].parameters or ()) == ["y"]
    assert len(batch.history or ()) == 3


def test_a_batch_ends_before_another_life_of_one_of_its_jobs() -> None:
    story, other = Story(random=1).enqueued().deleted().enqueued(), Story(random=2).enqueued()
    first = records(story, other)
    again = story.created_again().enqueued()
    entries = Entries([*first, *placed([(0, again.values[-1])], first_offset=4)])
    batch = entries.build({})
    assert (batch.jobs[story.id].latest.version, batch.jobs.keys()) == (3, {story.id, other.id})
    assert batch.length == len(entries) - 1
    assert entries[batch.length :].build({}).jobs[story.id].latest.version == 1


def test_what_is_newer_by_its_version_and_not_by_its_offset_is_of_an_earlier_life() -> None:
    story = Story().enqueued().processing().succeeded()
    batch = Entries(records(story)).build({story.id: Known(1, 8)})
    assert batch.jobs == {}
    assert [fact.event.version for _, fact in batch.history or ()] == [1]


def test_the_last_life_counts() -> None:
    story = Story().enqueued().processing().succeeded().created_again(queue="other").enqueued()
    assert [fact.event.version for _, fact in by_job(records(story))[story.id]] == [1]
    assert folded(story).latest.queue == "other"


def test_what_cannot_be_read_is_set_aside_with_its_place() -> None:
    batch = Entries(placed([(0, b"{}"), (1, None), (0, b"\x00")])).build({})
    assert [(one.record.lane, one.record.offset, one.code) for one in batch.parked] == [
        (0, 0, "undecodable"),
        (1, 0, "undecodable"),
        (0, 1, "undecodable"),
    ]


def test_a_record_that_fails_in_a_way_of_its_own_is_set_aside_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise OverflowError("too much")

    monkeypatch.setattr("joblog.projections.projector.event_batch.read_event", failing)
    [record] = records(Story().enqueued())
    [(_, one)] = Entries([record])
    assert isinstance(one, Parked)
    assert (one.record, one.code) == (record, "internal_error")
    assert one.reason.startswith("Traceback")
    assert one.reason.endswith("OverflowError: too much\n")
    assert [one.msg for one in caplog.records] == ["projection.unreadable"]


def test_a_reason_is_fit_for_a_text_column() -> None:
    envelope = json.loads(Story().enqueued().values[0])
    envelope["type"] = "job.\x00" + "x" * 5_000
    (_, one), *_ = Entries(placed([(0, json.dumps(envelope).encode())]))
    assert not isinstance(one, JobFact)
    assert "\x00" not in one.reason  # type: ignore[union-attr]


@given(st.integers(1, 8), st.data())
def test_a_fold_is_the_same_however_often_events_are_repeated(parameters: int, data: st.DataObject) -> None:
    story = Story(random=1).enqueued()
    for number in range(parameters):
        story.parameter_set(f"p{number % 3}", number)
    once = expected_job(folded(story))
    repeats = data.draw(st.lists(st.integers(1, parameters), max_size=4))
    for repeat in repeats:
        story.values.append(story.values[repeat])
    assert expected_job(folded(story)) == once
