from typing import Any

from joblog.streams.contract.states import State
from joblog.streams.replay.lineage import Lineage, began_ms, command_id, job_of_command, redrive_id
from msgspec import json

NOW = 1_800_000_000_000
REDRIVE = redrive_id(NOW, 7)
OTHER = redrive_id(NOW, 8)


def event(job: str, state: State, cause: str, *, version: int = 5, attempt: int = 1) -> bytes:
    data = {"version": version, "state": state, "attempt": attempt}
    return json.encode({"type": f"job.{state.lower()}", "subject": job, "causationid": cause, "data": data})


def rejected(command: str, code: str = "wrong_version") -> bytes:
    data = {"code": code, "reason": "it moved", "command_id": command}
    return json.encode({"type": "command.rejected", "subject": "a", "causationid": command, "data": data})


def after(*records: bytes) -> Lineage:
    lineage = Lineage(REDRIVE)
    for one in records:
        lineage.take(one)
    return lineage


def put_back(job: str = "a", **fields: Any) -> bytes:
    return event(job, State.ENQUEUED, command_id(REDRIVE, job), **fields)


def test_the_id_tells_when_a_redrive_began() -> None:
    assert began_ms(REDRIVE) == NOW
    assert began_ms("r12") is began_ms("019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12") is None


def test_what_another_redrive_did_is_not_counted() -> None:
    lineage = after(event("a", State.ENQUEUED, command_id(OTHER, "a")), put_back("b"))
    assert (lineage.put_back.keys(), lineage.decided) == ({"b"}, {"b"})


def test_a_job_that_runs_has_started() -> None:
    assert not after(put_back()).put_back["a"].started
    run = event("a", State.PROCESSING, "a/5", version=6, attempt=2)
    assert after(put_back(), run).put_back["a"].started


def test_a_run_that_was_given_back_unstarted_does_not_count() -> None:
    run = event("a", State.PROCESSING, "a/5", version=6, attempt=2)
    fate = after(put_back(), run, event("a", State.ENQUEUED, "reports/0@1", version=7)).put_back["a"]
    assert (fate.started, fate.state, fate.version) == (False, State.ENQUEUED, 7)


def test_a_command_that_was_sent_twice_put_its_job_back_all_the_same() -> None:
    lineage = after(put_back(), rejected(command_id(REDRIVE, "a")))
    assert (lineage.rejected, lineage.put_back.keys()) == ({}, {"a"})


def test_a_job_that_had_moved_is_told_by_its_code() -> None:
    lineage = after(rejected(command_id(REDRIVE, "a")))
    assert (lineage.rejected, lineage.put_back, lineage.decided) == ({"a": "wrong_version"}, {}, {"a"})


def test_an_undo_is_told_from_another_deletion() -> None:
    by_undo = event("a", State.DELETED, command_id(REDRIVE, "a", undo=True), version=6)
    assert after(put_back(), by_undo).put_back["a"].undone
    assert not after(put_back(), event("a", State.DELETED, "c-1", version=6)).put_back["a"].undone
    assert after(put_back(), rejected(command_id(REDRIVE, "a", undo=True))).rejected == {}


def test_a_mapped_job_is_put_back_under_an_id_of_its_own() -> None:
    lineage = after(event("new", State.ENQUEUED, command_id(REDRIVE, "old"), version=1, attempt=0))
    assert (lineage.put_back.keys(), lineage.decided) == ({"new"}, {"old"})


def test_a_job_that_another_redrive_or_a_command_put_back_later_is_theirs() -> None:
    gone = event("a", State.DELETED, command_id(REDRIVE, "a", undo=True), version=6)
    again = event("a", State.ENQUEUED, command_id(OTHER, "a"), version=7)
    fate = after(put_back(), gone, again).put_back["a"]
    assert (fate.undone, fate.moved, fate.state) == (True, True, State.ENQUEUED)
    assert after(put_back(), event("a", State.SCHEDULED, "c-1", version=6)).put_back["a"].moved
    later = Lineage(OTHER)
    for one in (put_back(), gone, again):
        later.take(one)
    assert not later.put_back["a"].moved


def test_electors_and_parameters_do_not_take_a_job_away_from_its_redrive() -> None:
    released = event("a", State.ENQUEUED, "reports/0@1", version=6)
    named = event("a", State.ENQUEUED, "c-1", version=7).replace(b"job.enqueued", b"job.parameter_set")
    hurried = event("a", State.ENQUEUED, "c-2", version=8).replace(b"job.enqueued", b"job.priority_set")
    fate = after(put_back(), released, named, hurried).put_back["a"]
    assert (fate.moved, fate.version) == (False, 8)
    moved = event("a", State.ENQUEUED, "c-3", version=9).replace(b"job.enqueued", b"job.moved")
    assert after(put_back(), moved).put_back["a"].moved


def test_the_commands_of_a_redrive_are_known_by_their_ids() -> None:
    assert job_of_command(REDRIVE, json.encode({"id": command_id(REDRIVE, "a"), "type": "job.requeue"})) == "a"
    assert job_of_command(REDRIVE, json.encode({"id": command_id(OTHER, "a")})) is None
    assert job_of_command(REDRIVE, json.encode({"id": command_id(REDRIVE, "a", undo=True)})) is None
    assert job_of_command(REDRIVE, b"no json") is None
    assert job_of_command(REDRIVE, b'{"id": 5}') is None
