"""A bulk operation is worked off once, whoever dies between its commands and the note of them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.projections.monitor.bulk import Found
from joblog.projections.monitor.models import BulkOperation
from joblog.projections.questions import InvalidQuestion
from joblog.services.bulk.runner import BELIEVED_S, LATE_S, BulkRunner, _current
from joblog.services.client.bulk import BulkOperations
from joblog.services.client.templates import CommandRecord, Rules
from joblog.services.settings.model import Settings
from joblog.streams.contract.controls import BulkAction
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import State
from joblog.streams.metrics import Meters
from msgspec import json

OPERATION = new_job_id(0, 1, 1)
JOBS = [new_job_id(0, 2, n) for n in range(25)]
RULES = Rules(1, {}, "/test", 100_000)
SNAPSHOT = {
    "version": 3,
    "state": "Failed",
    "attempt": 1,
    "task": "t",
    "queue": "q",
    "created_at": "2027-01-15T08:00:00Z",
    "spec": {"priority": 2},
    "parameters": {},
    "priority": 5,
}


class Killed(Exception):
    """The process is no more."""


class World:
    """The topic `commands`, the tables, and a clock."""

    def __init__(self, action: BulkAction = BulkAction.REQUEUE, rate: float = 10.0, **fields: Any) -> None:
        self.rules = RULES
        self.log: list[bytes] = []
        self.now_s = 0.0
        self.dies_before: str | None = None
        self.bulk = BulkOperations(self.send, RULES)
        self.pages: list[int] = []
        self.failure: Exception | None = None
        self.operation = BulkOperation(
            id=OPERATION, lane=0, state="running", action=action, filter={}, fence=(9,), rate=rate, queue=None,
            priority=None, matched=len(JOBS), sent=0, refused=0, cursor=None, started_by="ann", reason="repaired",
            started_at=datetime(2027, 1, 15, tzinfo=UTC), changed_at=datetime(2027, 1, 15, tzinfo=UTC), ended_by=None,
            end_reason=None, late_s=0.0,
        ).model_copy(update=fields)  # fmt: skip

    def send(self, records: Sequence[CommandRecord]) -> None:
        for record in records:
            if self.dies_before == json.decode(record.value)["type"]:
                self.dies_before = None
                raise Killed
            self.log.append(record.value)

    def page(self, _operation: BulkOperation, last: str | None, limit: int) -> list[Found]:
        """The tables never learn of what was sent: the worst case."""
        if self.failure is not None:
            raise self.failure
        found = [job for job in JOBS if last is None or job > last][:limit]
        self.pages.append(len(found))
        return [Found(job, State.FAILED, 3, SNAPSHOT) for job in found]

    def runner(self, *, is_new: bool) -> BulkRunner:
        began_s = self.operation.started_at.timestamp() - 1
        made = BulkRunner(
            Settings(),
            Meters(),
            clock=lambda: self.now_s,
            wall_clock=lambda: began_s,
            commands=lambda _: list(self.log),
        )
        made._looked([] if is_new else [self.operation])
        return made

    def work(self, runner: BulkRunner, seconds: int = 10) -> None:
        for _ in range(seconds):
            runner.turn(self.operation, _Monitor(self), self)  # type: ignore[arg-type]
            self.now_s += 1

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in map(json.decode, self.log) if one["type"] == kind]


class _Monitor:
    def __init__(self, world: World) -> None:
        self.bulk = world


def counted(world: World) -> list[tuple[int, int]]:
    return [(one["data"]["before"], one["data"]["sent"]) for one in world.of("bulk.advance")]


def test_each_job_gets_one_command_at_the_given_rate_and_the_end_is_told() -> None:
    world = World()
    world.work(world.runner(is_new=True))
    sent = world.of("job.requeue")
    assert [one["subject"] for one in sent] == JOBS
    assert {one["id"] for one in sent} == {f"bulk/{OPERATION}/{job}" for job in JOBS}
    data = sent[0]["data"]
    assert (data["expected_version"], data["expected_state"]) == (3, "Failed")
    assert data["reason"] == f"repaired (bulk {OPERATION} by ann)"
    assert data["snapshot"]["priority"] == 5
    assert world.pages == [10, 10, 5, 0]
    assert counted(world) == [(0, 10), (10, 20), (20, 25), (25, 25)]
    assert world.of("bulk.advance")[-1]["data"]["outcome"] == "done"


@pytest.mark.parametrize("kind", ["bulk.advance", "job.requeue"])
def test_whoever_goes_on_sends_what_was_not_sent_and_counts_all(kind: str) -> None:
    world = World()
    first = world.runner(is_new=True)
    world.work(first, 1)
    world.dies_before = kind
    with pytest.raises(Killed):
        world.work(first, 1)
    world.work(world.runner(is_new=False))
    assert sorted(one["subject"] for one in world.of("job.requeue")) == JOBS
    assert counted(world)[-1] == (25, 25)


def test_a_runner_that_another_one_has_overtaken_goes_on_behind_it() -> None:
    world = World()
    first, second = world.runner(is_new=True), world.runner(is_new=False)
    world.work(first, 1)
    world.work(second, 1)
    world.operation = world.operation.model_copy(update={"sent": 20})
    world.work(first)
    assert sorted(one["subject"] for one in world.of("job.requeue")) == JOBS


def test_an_end_that_the_lane_did_not_believe_is_told_again() -> None:
    world = World()
    runner = world.runner(is_new=True)
    world.work(runner, 5)
    world.log = [one for one in world.log if b"bulk.advance" not in one]  # as if another one's had been accepted
    world.now_s += BELIEVED_S + 1
    world.work(runner, 5)
    assert len(world.of("job.requeue")) == len(JOBS)
    assert counted(world) == [(0, 10), (10, 20), (20, 25), (25, 25)]


def test_what_cannot_be_done_ends_the_operation_with_the_reason() -> None:
    world = World()
    world.failure = InvalidQuestion("this is no filter")
    world.work(world.runner(is_new=True), 2)
    (ended,) = world.of("bulk.advance")
    assert (ended["data"]["outcome"], ended["data"]["reason"]) == ("failed", "this is no filter")


@pytest.mark.parametrize(
    ("action", "fields", "expected"),
    [
        (BulkAction.DELETE, {}, {"snapshot"}),
        (BulkAction.MOVE, {"queue": "slow"}, {"queue"}),
        (BulkAction.SET_PRIORITY, {"priority": -3}, {"priority"}),
        (BulkAction.REQUEUE, {"queue": "slow"}, {"queue", "snapshot"}),
    ],
)
def test_each_action_has_its_command(action: BulkAction, fields: dict[str, Any], expected: set[str]) -> None:
    world = World(action, **fields)
    world.work(world.runner(is_new=True))
    kind = {"requeue": "job.requeue", "delete": "job.delete", "move": "job.move"}.get(action, "job.set_priority")
    common = {"job_id", "expected_state", "expected_version", "reason"}
    assert [set(one["data"]) - common for one in world.of(kind)] == [expected] * len(JOBS)
    assert fields.items() <= world.of(kind)[0]["data"].items()


def test_an_operation_waits_while_the_tables_are_behind() -> None:
    """They may be filled anew, and not know yet that it has ended."""
    operations = [World(late_s=late).operation for late in (None, LATE_S + 1, LATE_S)]
    assert _current(operations) == operations[2:]


def killed(world: World) -> None:
    """A runner sends its first page, and ends before it is noted."""
    world.dies_before = "bulk.advance"
    with pytest.raises(Killed):
        world.work(world.runner(is_new=True), 1)


def after_all(world: World) -> tuple[int, tuple[int, int]]:
    """How many commands there are, and what was noted last."""
    return len(world.of("job.requeue")), counted(world)[-1]


def test_an_operation_that_the_tables_knew_while_they_were_behind_is_not_begun_anew() -> None:
    world = World()
    killed(world)
    world.operation = world.operation.model_copy(update={"late_s": LATE_S + 1})
    runner = world.runner(is_new=False)
    world.operation = world.operation.model_copy(update={"late_s": 0.0})
    world.work(runner)
    assert after_all(world) == (len(JOBS), (25, 25))


def test_an_operation_that_the_tables_learn_of_later_than_it_began_is_not_begun_anew() -> None:
    """They were put in the place of others, or are filled anew."""
    world = World()
    killed(world)
    runner = world.runner(is_new=True)
    world.operation = world.operation.model_copy(update={"started_at": datetime(2027, 1, 14, tzinfo=UTC)})
    world.work(runner)
    assert after_all(world) == (len(JOBS), (25, 25))


def test_an_operation_that_the_tables_do_not_know_for_a_while_is_not_begun_anew() -> None:
    world = World()
    runner = world.runner(is_new=True)
    world.work(runner, 1)
    assert runner._looked([]) == []
    world.work(runner)
    assert after_all(world) == (len(JOBS), (25, 25))


def test_a_slow_operation_sends_one_job_at_a_time() -> None:
    world = World(rate=0.5)
    world.work(world.runner(is_new=True), 4)
    assert len(world.of("job.requeue")) == 2
    assert timedelta(seconds=world.now_s) == timedelta(seconds=4)
