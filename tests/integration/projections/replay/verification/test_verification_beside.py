"""What is beside events and rows of jobs is verified, too: `state`, dead letters, rejected and parked records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from joblog.projections.replay.verification import verification
from joblog.projections.replay.verification.findings import Finding, Kind
from joblog.projections.replay.verification.verification import Report
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import ContinueOn
from joblog.streams.lane.job import Job
from msgspec import json, structs

from tests.support import projection_settings
from tests.support.projection_events import Story, rejected_event
from tests.support.projection_settings import Setting, interleaved, jobs
from tests.support.replay_world import ReplayWorld, record_of

dsn = projection_settings.dsn
setting = projection_settings.setting
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]


@pytest.fixture
def lanes() -> int:
    return 3


@pytest.fixture
def world(setting: Setting, writer: Producer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReplayWorld:
    monkeypatch.setattr(verification, "SETTLE_S", 0.05)  # nothing is written meanwhile
    return ReplayWorld(setting, writer, tmp_path)


def of(report: Report, kind: Kind) -> list[Finding]:
    return [one for one in report.findings if one.kind is kind]


def execute(world: ReplayWorld, *statements: str) -> None:
    with psycopg.connect(world.setting.dsn, options=f"-c search_path={world.setting.schema}") as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1  # type: ignore[arg-type]


def waiting_jobs() -> tuple[Story, Story, list[Story]]:
    """A parent, a job that waits for it, and others."""
    given = {"args": [1e2], "priority": 4, "parameters": {"colour": "red", "size": 1}}
    parent = Story(lane=1, random=200, spec=given).enqueued().parameter_set("size", {"n": 2})
    child = Story(lane=2, random=201).awaiting(parent.id)
    return parent, child, [*jobs(20, 3), parent, child]


CHANGES: dict[str, tuple[Callable[[Job], Job], dict[str, Any]]] = {
    "a changed parameter": (
        lambda job: structs.replace(job, parameters=b'{"size":{"n":3}}'),
        {"parameters": {"colour": "red", "size": {"n": 3}}},
    ),
    "a lost parameter": (
        lambda job: structs.replace(job, parameters=b"{}"),
        {"parameters": {"colour": "red", "size": 1}},
    ),
    "parameters that nobody can read": (
        lambda job: structs.replace(job, parameters=b"{"),
        {"parameters": "unreadable: Input data was truncated"},
    ),
    "a wrong priority": (lambda job: structs.replace(job, priority=5), {"priority": 5}),
    "another argument": (
        lambda job: structs.replace(job, spec=job.spec.replace(b"100.0", b"101")),
        {"args": [101], "priority": 4, "parameters": {"colour": "red", "size": 1}},
    ),
    "a missing continuation": (lambda job: structs.replace(job, continuations=()), {"continuations": []}),
    "a continuation that waits for something else": (
        lambda job: structs.replace(job, continuations=((job.continuations[0][0], ContinueOn.FAILED),)),
        {"parent": "PARENT", "on": "failed"},
    ),
}


def test_what_a_record_of_state_says_otherwise_is_named(world: ReplayWorld) -> None:
    parent, child, stories = waiting_jobs()
    world.write(interleaved(stories))
    world.keep_state(stories)
    assert world.verify("before", dsn=None).findings == []
    for change, (changed, says) in CHANGES.items():
        world.state(parent.lane, parent.id, changed(record_of(parent, stories)))
        world.writer.flush()
        findings = world.verify(change, dsn=None).findings
        assert {(one.kind, one.job) for one in findings} == {(Kind.STATE, parent.id)}, change
        found = [json.decode(json.encode(one.found)) for one in findings]
        assert {name: parent.id if value == "PARENT" else value for name, value in says.items()} in found, change
        assert len(findings) == (2 if change.endswith("something else") else 1), change
        assert all(one.log != one.found for one in findings), change
    missing = next(one for one in findings if "does not list" in one.what)
    assert (missing.log["continuation"], missing.log["on"]) == (child.id, "succeeded")


def test_a_continuation_of_which_no_event_tells_is_named(world: ReplayWorld) -> None:
    parent, _child, stories = waiting_jobs()
    world.write(interleaved(stories))
    world.keep_state(stories)
    stranger = new_job_id(0, 1, 77)
    job = record_of(parent, stories)
    more = (*job.continuations, (stranger, ContinueOn.ENDED))
    world.state(parent.lane, parent.id, structs.replace(job, continuations=more))
    world.writer.flush()
    (one,) = world.verify(dsn=None).findings
    assert (one.kind, one.job, one.log) == (Kind.STATE, parent.id, None)
    assert stranger in one.what


def test_a_spec_that_is_written_otherwise_and_means_the_same_is_no_finding(world: ReplayWorld) -> None:
    parent, _child, stories = waiting_jobs()
    world.write(interleaved(stories))
    world.keep_state(stories)
    job = record_of(parent, stories)
    spec = b'{"priority": 4, "args": [1e2], "parameters": {"size": 1, "colour": "r\\u0065d"}}'
    assert spec != job.spec
    world.state(parent.lane, parent.id, structs.replace(job, spec=spec))
    world.writer.flush()
    assert world.verify(dsn=None).findings == []


@pytest.fixture
def aside(world: ReplayWorld) -> ReplayWorld:
    """A log in which some records cannot be read, commands are rejected, and an event is missing, all applied."""
    gap = Story(lane=1, random=300).enqueued().processing().succeeded()
    values = [(gap.lane, value) for value in (gap.values[0], gap.values[2])]
    broken = [(n % 3, b"no event %d" % n) for n in range(4)]
    told = [(n % 3, rejected_event(reason=f"reason {n}", position=f"commands/{n % 3}@{n}")) for n in range(4)]
    world.write([*interleaved(jobs(20, 3)), *broken, *values, *told])
    world.apply()
    return world


def against_tables(world: ReplayWorld, name: str = "verify") -> list[Finding]:
    return world.verify(name, with_state=False).against_tables


def test_rejected_and_parked_rows_are_those_of_the_log(aside: ReplayWorld) -> None:
    report = aside.verify(with_state=False)
    assert report.against_tables == []
    assert report.counts == {Kind.UNREADABLE: 4, Kind.VERSION_GAP: 1, Kind.WRONG_LEASE: 1}


#: What is done to the tables -> the kind of the finding, and what it says.
FAULTS = {
    "DELETE FROM parked WHERE raw = 'no event 1'": ("parked", "in the log, not in the tables"),
    "DELETE FROM parked WHERE code = 'version_gap'": ("parked", "in the log, not in the tables"),
    "UPDATE parked SET code = 'refused' WHERE raw = 'no event 1'": ("parked", "code differ"),
    "UPDATE parked SET reason = 'x' WHERE raw = 'no event 1'": ("parked", "reason differ"),
    "UPDATE parked SET raw = 'other' WHERE raw = 'no event 1'": ("parked", "raw differ"),
    "UPDATE parked SET at = at + interval '1 ms' WHERE raw = 'no event 1'": ("parked", "at differ"),
    "INSERT INTO parked SELECT lane, log_offset + 99, at, code, reason, raw FROM parked WHERE raw = 'no event 1'": (
        "parked",
        "in the tables, not in the log",
    ),
    "DELETE FROM rejected WHERE reason = 'reason 2'": ("rejected", "in the log, not in the tables"),
    "UPDATE rejected SET command = 'x' WHERE reason = 'reason 2'": ("rejected", "command differ"),
    "UPDATE rejected SET position = NULL WHERE reason = 'reason 2'": ("rejected", "position differ"),
    "INSERT INTO rejected (lane, log_offset, at, code, reason) SELECT lane, log_offset + 99, at, code, reason"
    " FROM rejected WHERE reason = 'reason 2'": ("rejected", "in the tables, not in the log"),
}


def test_a_row_of_no_job_that_differs_is_named(aside: ReplayWorld) -> None:
    tables = ("parked", "rejected")
    with psycopg.connect(aside.setting.dsn, options=f"-c search_path={aside.setting.schema}") as connection:
        for table in tables:
            connection.execute(f"CREATE TABLE {table}_before AS TABLE {table}")  # type: ignore[arg-type]
    for number, (fault, (kind, what)) in enumerate(FAULTS.items()):
        execute(aside, fault)
        (one,) = against_tables(aside, str(number))
        assert one.kind == kind, fault
        assert what in one.what, fault
        assert one.log != one.found, fault
        assert one.position is not None
        with psycopg.connect(aside.setting.dsn, options=f"-c search_path={aside.setting.schema}") as connection:
            for table in tables:
                connection.execute(f"TRUNCATE {table}")  # type: ignore[arg-type]
                connection.execute(f"INSERT INTO {table} TABLE {table}_before")  # type: ignore[arg-type]


def test_an_event_that_the_tables_have_refused_must_be_there(world: ReplayWorld) -> None:
    """Postgres cannot keep a NUL in a text, so the event is parked, and the tables are as if it were not there."""
    story = Story(lane=1, random=5).enqueued(reason="fine").processing().succeeded()
    refused = Story(lane=1, random=6).enqueued(reason="a\x00b")
    world.write((1, value) for value in (*story.values, *refused.values))
    world.apply()
    assert against_tables(world, "before") == []
    execute(world, "UPDATE parked SET raw = 'x' WHERE code = 'refused'")
    (one,) = against_tables(world, "changed")
    assert (one.kind, one.lane) == (Kind.PARKED, 1)
    execute(world, "UPDATE parked SET log_offset = 99")
    found = against_tables(world, "moved")
    assert {one.kind for one in found} == {Kind.PARKED, Kind.JOB, Kind.HISTORY, Kind.COUNTER}


def unreadable_command(lane: int, offset: int, **data: Any) -> tuple[int, bytes]:
    return lane, rejected_event(
        **{"code": "undecodable", "command": None, "position": f"commands/{lane}@{offset}", **data}
    )


def test_dead_letters_of_commands_and_their_rejections_must_have_each_other(world: ReplayWorld) -> None:
    world.write(
        [
            unreadable_command(0, 1),
            unreadable_command(1, 2, code="internal_error", command="job.delete"),
            unreadable_command(2, 3),
            (2, rejected_event(position="commands/2@4")),  # it could be read, and was not parked
        ]
    )
    world.keep_state([])
    world.deadletter("commands/0@1")
    world.deadletter("commands/1@2", "internal_error")
    world.deadletter("commands/1@7", "internal_error")  # it failed twice, and was only parked
    world.deadletter("commands/2@3")
    for _ in range(2):  # these are written at least once, and no event tells of them
        world.deadletter("delay.1m/0@3", role="delays")
        world.deadletter("assignments/0@3", role="worker")
    assert world.verify("well", dsn=None).findings == []
    world.deadletter("commands/0@1")
    world.deadletter("commands/0@9")
    world.write([unreadable_command(1, 10)])
    found = of(world.verify("faults", dsn=None), Kind.DEADLETTER)
    assert len(found) == 3
    doubled, unknown, missing = sorted(found, key=lambda one: (one.lane or 0, one.what))
    assert "commands/0@1 is among the dead letters more than once" in doubled.what
    assert "is commands/0@9, which no event rejects" in unknown.what
    assert "commands/1@10 is rejected (undecodable), and not among the dead letters" in missing.what
    assert missing.position is not None
