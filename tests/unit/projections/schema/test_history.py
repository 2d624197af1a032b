"""How the events of a job are kept, and read again."""

import json
from datetime import timedelta

import pytest
from joblog.projections.projector.decode import JobFact
from joblog.projections.projector.event_batch import Entries, kept
from joblog.projections.schema.history import history_row, read, shown

from tests.support.projection_events import BEGINNING, ERROR, Story, records

DUE = BEGINNING + timedelta(hours=1)


def story() -> Story:
    told = Story(lane=3, spec={"args": [1], "parameters": {"x": 1}}).enqueued(reason="go, \u00e4 \ud83d\ude00")
    told.processing().failed(traversed=True).scheduled(DUE, retry=1).enqueued(retry=1).parameter_set("x", {"spec": 1})
    return told.processing().succeeded({"data": {"spec": {"args": [1], "parameters": {"x": 1}}}}).deleted()


def test_what_is_kept_of_an_event_is_all_that_it_says() -> None:
    for record, fact in Entries(records(story())):
        assert isinstance(fact, JobFact)
        row = read(kept(record, fact))
        assert row == history_row(record.lane, record.offset, fact.at, fact.type, fact.event)
        assert json.loads(row.details) == json.loads(fact.details)


def test_a_spec_is_cut_out_of_what_is_kept() -> None:
    [(record, fact), *_] = Entries(records(story()))
    assert isinstance(fact, JobFact)
    assert b'"args"' in fact.data
    assert b'"args"' not in kept(record, fact)


@pytest.mark.parametrize("result", ['"spec":{"args":[1]}', '"x":1,"spec":{"args":[1]}'])
def test_what_only_looks_like_a_spec_stays(result: str) -> None:
    value = Story(spec={"args": [1]}).enqueued().values[0]
    value = value.replace(b'"task"', f'"result":{{{result}}},"task"'.encode())
    [(record, fact)] = Entries(records(Story(values=[value])))
    assert isinstance(fact, JobFact)
    assert json.loads(read(kept(record, fact)).details)["result"] == json.loads(f"{{{result}}}")


def test_an_event_is_shown_with_what_its_type_adds() -> None:
    *_, (record, fact) = Entries(records(Story(lane=3).enqueued().processing().failed(reason="raised")))
    assert isinstance(fact, JobFact)
    entry = shown(read(kept(record, fact)))
    assert (entry["version"], entry["lane"], entry["log_offset"], entry["reason"]) == (3, 3, 2, "raised")
    assert entry["at"] == BEGINNING + timedelta(seconds=3)
    assert entry["data"]["exception"] == ERROR
