"""`state` follows from the events: a lane that is folded from them is the lane that wrote them."""

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from joblog.streams.contract import wire
from joblog.streams.contract.controls import BulkAction
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import Need, UniquePolicy, UniqueUntil
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.elector.lane_records import read_state, write_state
from joblog.streams.lane.control_fold import ControlFold
from joblog.streams.lane.event_fold import EventFold
from joblog.streams.lane.feature import Feature
from joblog.streams.lane.features.former_continuations import FormerContinuations
from joblog.streams.lane.features.memory import ENDED_KEY
from joblog.streams.lane.features.unique_keys import UniqueKeys
from joblog.streams.lane.features.unmet_continuations import UnmetContinuations
from joblog.streams.lane.job import Job
from joblog.streams.lane.lane import Lane
from msgspec import Raw, json

from tests.support.lane_world import LANES, RULES, World, done, facts, queue_in
from tests.support.scene import NOW, Scene, create, id_of, worker

F = TypeVar("F", bound=Feature)


def folded(world: World, number: int, kept: int = 10_000) -> EventFold:
    fold = EventFold(number, kept, LANES)
    for partition in world.partitions:
        for key, kind, event, _ in partition.events:
            if kind.startswith("job."):
                fold.apply(key, event, NOW, None)
    return fold


def lane_of(fold: EventFold) -> Lane:
    """What an elector makes of the records that the fold writes."""
    lane = Lane(fold.number, LANES, RULES)
    for key, value in fold.state(NOW).items():
        record = write_state(value)
        assert record is not None
        lane.load(key, read_state(key, record), NOW)
    lane.loaded(NOW)
    return lane


def feature(kind: type[F], lane: Lane) -> F:
    return next(one for one in lane.features if isinstance(one, kind))


def called_back(lane: Lane, world: World) -> set[tuple[str, str]]:
    """Which continuations wait again when which job is requeued, as far as they still can."""
    children = feature(FormerContinuations, lane).children.items()
    unmet = {job for one in world.lanes for job in feature(UnmetContinuations, one).jobs}
    return {(parent, child) for parent, named in children for child in named if child in unmet}


def unique_keys(lane: Lane) -> tuple[object, object]:
    keys = feature(UniqueKeys, lane)
    return {place: sorted(claims) for place, claims in keys.claims.items()}, keys.periods


steps = st.lists(st.tuples(st.integers(0, LANES - 1), st.integers(0, 5), st.booleans()), min_size=1, max_size=25)


def named(index: int, steps: list[tuple[int, int, bool]]) -> str:
    """The id of the job that the step of this index may have made."""
    return id_of(chr(ord("a") + index), steps[index][0])


def act(world: World, index: int, step: tuple[int, int, bool], steps: list[tuple[int, int, bool]]) -> None:
    """Create a job (perhaps one that waits for another), delete one, or let all runs succeed."""
    lane, what, other = step
    if what == 2 and other:
        unique = wire.Unique("k", UniquePolicy.REPLACE, UniqueUntil.PERIOD, 60.0) if index % 2 else wire.Unique("k")
        world.send(create(chr(ord("a") + index), lane=lane, lanes=LANES, unique=unique), lane)
    elif what <= 2:
        parent: dict[str, Any] = {"parent": wire.Parent(named(index - 1, steps))} if index and other else {}
        if index > 1 and other and what == 1:
            need = Need.ANY if index % 2 else Need.ALL
            ids = (named(index - 1, steps), named(index - 2, steps))
            parent = {"parents": wire.Parents(ids, need=need)}
        world.send(create(chr(ord("a") + index), lane=lane, lanes=LANES, **parent), lane)
    elif what == 3 and other and (ended := world.folds.get(named(index // 2, steps))) is not None:
        known = wire.Snapshot(
            ended.version, ended.state, ended.attempt, ended.task, ended.queue,
            EPOCH + timedelta(milliseconds=ended.created_ms), json.decode(ended.spec, type=wire.JobSpec),
            json.decode(ended.parameters, type=dict[str, Raw]),
        )  # fmt: skip
        again = wire.RequeueJob(job_id=ended.id, snapshot=known if ended.state in FINAL_STATES else None)
        world.send(again, lane_of_job(ended.id))
    elif what == 3:
        world.send(wire.DeleteJob(job_id=named(index // 2, steps)), lane_of_job(named(index // 2, steps)))
    else:
        for number in range(LANES):
            for job in list(world.lanes[number].jobs.values()):
                if job.worker is not None:
                    world.report(number, done(job.id, job.lease, job.worker))


def turns(world: World) -> None:
    for number in range(LANES):
        world.turn(number, 100, 100)


@given(steps=steps)
@settings(max_examples=60, deadline=None)
def test_a_lane_that_is_folded_from_its_events_is_the_lane_that_wrote_them(
    steps: list[tuple[int, int, bool]],
) -> None:
    world = World()
    for number in range(LANES):
        world.report(number, worker(slots=2, queues=(queue_in(number, LANES),)))
    for index, step in enumerate(steps):
        act(world, index, step, steps)
        turns(world)
    for _ in range(3):  # until what lanes tell each other is read
        turns(world)
    for number, lane in enumerate(world.lanes):
        made = lane_of(folded(world, number))
        assert {key: facts(job) for key, job in made.jobs.items()} == {
            key: facts(job) for key, job in lane.jobs.items()
        }
        for key, job in lane.jobs.items():
            # A lane keeps the wait of a continuation that was deleted meanwhile: to tell it anything is in vain.
            waiting = {one for one in job.continuations if world.folds[one[0]].state is State.AWAITING}
            assert set(made.jobs[key].continuations) == waiting
        assert unique_keys(made) == unique_keys(lane)
        assert feature(UnmetContinuations, made).jobs.keys() == feature(UnmetContinuations, lane).jobs.keys()
        assert called_back(made, world) == called_back(lane, world)
        for job_id, fold in world.folds.items():
            if lane_of_job(job_id) == number:
                assert made.ended.get(job_id) == lane.ended.get(job_id), fold


def test_only_so_many_ended_jobs_are_remembered_and_a_later_event_of_another_is_unknown() -> None:
    fold = EventFold(0, 1, LANES)
    for name in "ab":
        spec = Raw(b"{}")
        fold.apply(id_of(name), wire.JobEvent(1, State.ENQUEUED, 0, "q", "t", spec=spec), NOW, None)
        fold.apply(id_of(name), wire.JobEvent(2, State.DELETED, 0, "q", "t"), NOW, None)
    assert list(fold.state(NOW)) == [f"{ENDED_KEY}0"]
    assert fold.state(NOW)[f"{ENDED_KEY}0"] == ((id_of("b"), "Deleted", 2),)
    fold.apply(id_of("a"), wire.JobEvent(3, State.ENQUEUED, 0, "q", "t"), NOW, None)
    assert fold.unknown == {id_of("a")}
    fold.apply(id_of("b"), wire.JobEvent(3, State.ENQUEUED, 0, "q", "t"), NOW, "trace")
    again = EventFold(0, 1, LANES)
    again.apply(id_of("a"), wire.JobEvent(1, State.ENQUEUED, 0, "q", "t", spec=Raw(b"{}")), NOW, "trace")
    fold.take(again)
    assert not fold.unknown
    assert set(fold.jobs) == {id_of("a"), id_of("b")}
    assert all(isinstance(one, Job) for one in fold.state(NOW).values())


def test_a_continuation_whose_parent_nobody_has_created_waits_for_it() -> None:
    fold = EventFold(0, 1, LANES)
    awaiting = wire.JobEvent(
        1, State.AWAITING, 0, "q", "t", spec=Raw(b"{}"), parent=id_of("p"), on=ContinueOn.SUCCEEDED
    )
    fold.apply(id_of("c", 1), awaiting, NOW, None)
    assert fold.state(7) == {f"pending:{id_of('p')}": ((id_of("c", 1), "succeeded", 7, ""),)}
    fold.apply(id_of("c", 1), wire.JobEvent(2, State.DELETED, 0, "q", "t"), NOW, None)
    assert fold.state(7) == {}


def test_paused_queues_and_bulk_operations_follow_from_the_events_of_their_lane() -> None:
    scene = Scene().given(worker(slots=3), create("a"))
    fold = ControlFold()
    bulk = {"action": BulkAction.DELETE, "fence": (5,), "matched": 2, "rate": 1.0}
    until = datetime(2027, 2, 1, tzinfo=UTC)
    for command in (
        wire.PauseQueue(queue="q1", until=until),
        wire.PauseQueue(queue="q2"),
        wire.DrainQueue(queue="q0"),
        wire.DrainQueue(queue="q3", until=until),
        wire.ResumeQueue(queue="q2"),
        wire.StartBulk(operation=id_of("o"), **bulk),
        wire.StartBulk(operation=id_of("p"), **bulk),
        wire.AdvanceBulk(operation=id_of("o"), before=0, sent=2, cursor=id_of("a")),
        wire.CancelBulk(operation=id_of("p")),
    ):
        scene.when(command)
        for _, kind, _, data, _, _ in scene.out.events:
            fold.apply(kind, json.encode(data))
    kept = {key: read_state(key, value) for key, value in scene.kept.items() if key.startswith(("queue:", "bulk:"))}
    assert len(kept) == 5
    assert fold.state() == kept
