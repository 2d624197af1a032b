"""Which jobs a redrive puts back, by which commands, and which of them an undo may delete."""

from datetime import UTC, datetime
from typing import Any

import pytest
from joblog.projections.monitor.models import Job
from joblog.services.client.redriving import made_anew, put_back, taken_back
from joblog.services.client.templates import Rules
from joblog.services.replay.redriving import Choice, Redrive, Redriven, _not_started, check_id
from joblog.streams.contract.states import State
from joblog.streams.errors import InvalidData
from joblog.streams.progress import silent
from joblog.streams.replay.lineage import Fate, Lineage, redrive_id
from msgspec import json

NOW = 1_800_000_000_000
REDRIVE = redrive_id(NOW, 7)
RULES = Rules(2, {}, "/test", 65_536)
IDS = [f"01a20a16-c2e7-8000-bee9-{n:012x}" for n in range(30)]
SNAPSHOT = {
    "version": 3, "state": "Failed", "attempt": 1, "task": "t", "queue": "q", "created_at": "2027-01-01T00:00:00Z",
    "spec": {"args": [1], "parameters": {"owner": "shop"}}, "parameters": {},
}  # fmt: skip


def job(job_id: str) -> Job:
    fields = dict.fromkeys(Job.model_fields)
    known = {"id": job_id, "state": State.FAILED, "version": 3, "task": "t", "queue": "q"}
    return Job.model_construct(**{**fields, **known})


class Page:
    def __init__(self, items: list[Job], next_cursor: str | None) -> None:
        self.items, self.next_cursor = items, next_cursor


class Tables:
    """Stands in for a Monitor: the failed jobs, in pages of seven."""

    def __init__(self, jobs: list[str]) -> None:
        self.jobs_there = jobs
        self.asked: dict[str, Any] = {}

    def jobs(self, *, limit: int, cursor: str | None, **asked: Any) -> Page:
        assert limit > 0
        self.asked = asked
        first = int(cursor or 0)
        found = [job(one) for one in self.jobs_there[first : first + 7]]
        return Page(found, str(first + 7) if first + 7 < len(self.jobs_there) else None)


class Log:
    redrive = REDRIVE


def redrive(tables: Tables, choice: Choice, known: set[str] | None = None) -> Redrive:
    one: Any = Redrive
    made: Redrive = one(None, tables, Log(), choice, known or set(), silent)
    return made


@pytest.mark.parametrize(
    ("limit", "known", "planned"), [(None, 0, 30), (10, 0, 10), (10, 4, 6), (10, 10, 0), (10, 12, 0), (50, 0, 30)]
)
def test_a_limit_holds_for_all_that_a_redrive_sends_however_often_it_goes_on(
    limit: int | None, known: int, planned: int
) -> None:
    one = redrive(Tables(IDS), Choice(limit=limit), set(IDS[:known]))
    plan = one.plan()
    assert plan.jobs == planned
    assert plan.samples == IDS[known : known + min(planned, 5)]


def test_jobs_that_came_later_than_the_plan_are_not_sent() -> None:
    tables = Tables(IDS[:12])
    one = redrive(tables, Choice())
    assert one.plan().jobs == 12
    tables.jobs_there = IDS
    assert [found.id for found in one._planned()] == IDS[:12]


def test_only_what_came_into_its_state_before_the_redrive_began_is_asked_for() -> None:
    tables = Tables(IDS)
    redrive(tables, Choice()).plan()
    assert tables.asked["changed_before"] == datetime.fromtimestamp(NOW / 1000, UTC)
    early = datetime(2026, 1, 1, tzinfo=UTC)
    redrive(tables, Choice(until=early, queue="q")).plan()
    assert (tables.asked["changed_before"], tables.asked["queue"]) == (early, "q")


def test_a_command_names_its_redrive_and_the_version_that_was_found() -> None:
    command = json.decode(put_back(job(IDS[0]), SNAPSHOT, REDRIVE, "repaired", RULES).value)
    assert command["id"] == f"redrive/{REDRIVE}/{IDS[0]}"
    assert (command["data"]["expected_state"], command["data"]["expected_version"]) == ("Failed", 3)
    assert command["data"]["reason"] == f"repaired (redrive {REDRIVE})"
    gone = json.decode(taken_back(IDS[0], Fate(4, State.ENQUEUED, 1), REDRIVE, RULES).value)
    assert gone["id"] == f"undo/{REDRIVE}/{IDS[0]}"
    assert (gone["data"]["expected_state"], gone["data"]["expected_version"]) == ("Enqueued", 4)


def test_a_job_with_other_arguments_has_the_same_id_whoever_sends_it() -> None:
    made = [made_anew(job(IDS[0]), SNAPSHOT, ([n], {}), REDRIVE, RULES) for n in range(2)]
    assert made[0].job_id == made[1].job_id != IDS[0]
    command = json.decode(made[0].value)
    assert command["id"] == f"redrive/{REDRIVE}/{IDS[0]}"
    assert command["data"]["parameters"] == {"owner": "shop", "redrive": REDRIVE, "redriveOf": IDS[0]}


@pytest.mark.parametrize(
    ("fate", "is_undone"),
    [
        (Fate(4, State.ENQUEUED, 1), True),
        (Fate(5, State.SCHEDULED, 1), True),
        (Fate(6, State.SCHEDULED, 1, started=True), False),  # it failed, and waits for its retry
        (Fate(6, State.ENQUEUED, 1, moved=True), False),
        (Fate(6, State.PROCESSING, 1, started=True), False),
        (Fate(6, State.DELETED, 1, undone=True), False),
    ],
)
def test_an_undo_deletes_what_waits_and_has_not_started(fate: Fate, is_undone: bool) -> None:
    lineage = Lineage(REDRIVE)
    lineage.put_back["a"] = fate
    assert ("a" in _not_started(lineage)) is is_undone


def test_a_redrive_holds_if_all_is_decided_and_only_moved_jobs_were_refused() -> None:
    assert Redriven(REDRIVE, 3, 2, {"wrong_version": 1}, 0).holds
    assert not Redriven(REDRIVE, 3, 2, {}, 1).holds
    assert not Redriven(REDRIVE, 3, 2, {"too_large": 1}, 0).holds


def test_what_is_no_redrive_is_refused() -> None:
    assert check_id(REDRIVE) == NOW
    with pytest.raises(InvalidData, match="is not the id of a redrive"):
        check_id("r12")
