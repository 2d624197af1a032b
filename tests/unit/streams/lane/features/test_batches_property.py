"""Whatever happens to batches, in whatever order, and whoever dies: the counts are exact and ends are told once."""

from collections.abc import Callable
from random import Random

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import AWAITING, DELETED, FAILED, FINAL_STATES, SUCCEEDED, ContinueOn
from joblog.streams.lane.verdicts import verdict
from msgspec import json

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES, done
from tests.support.scene import BOOM, NOW

STEPS = 200


class Story:
    """A random life of some batches, and of jobs that wait for them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = BatchWorld()
        self.sent: list[list[wire.Command]] = []
        self.batches: list[str] = []
        self.outer: dict[str, str] = {}
        self.waiters: dict[str, wire.Parent] = {}
        self.cancelled: set[str] = set()
        self.steps: list[Callable[[], None]] = [
            *[self.turn] * 8, *[self.say] * 4, self.create, self.create, self.nest, self.attach, self.wait_for,
            self.wait_for, self.cancel, self.repeat, self.requeue, self.delete, self.take_over, self.lose, self.pass_,
            self.announce, self.shuffle,
        ]  # fmt: skip

    def lanes(self) -> list[int]:
        return [self.random.randrange(LANES) for _ in range(self.random.randrange(5))]

    def send(self, commands: list[wire.Command]) -> None:
        self.sent.append(commands)
        self.world.send_all(commands)

    def a_parent(self) -> wire.Parent | None:
        on = self.random.choice(list(ContinueOn))
        if self.batches and self.random.random() < 0.3:
            return wire.Parent(self.random.choice(self.batches), on, ParentKind.BATCH)
        jobs = [one for one, fold in self.world.folds.items() if fold.extras is None]
        return wire.Parent(self.random.choice(jobs), on) if jobs and self.random.random() < 0.2 else None

    # --- steps ---

    def create(self) -> None:
        said = {} if (parent := self.a_parent()) is None else {"parent": parent}
        made = self.world.create(self.lanes(), self.random.randrange(LANES), **said)
        self.batches.append(made[0].batch_id)
        self.send(made)

    def nest(self) -> None:
        """A batch within another, which may wait, and then the inner one waits with it."""
        outer = self.world.an_id(self.random.randrange(LANES))
        parent = self.a_parent()
        held = {} if parent is None else {"parent": wire.Parent(outer, kind=ParentKind.BATCH)}
        inner = self.world.create(self.lanes(), self.random.randrange(LANES), batch=outer, **held)
        said = {} if parent is None else {"parent": parent}
        made = self.world.create(self.lanes(), 0, batch_id=outer, inner=(inner[0],), **said)
        assert made[0].batch_id == outer
        self.batches += [outer, inner[0].batch_id]
        self.outer[inner[0].batch_id] = outer
        marks = [one for one in made if isinstance(one, wire.MarkBatch)]
        self.send([*made[: len(made) - len(marks)], *inner, *marks])

    def attach(self) -> None:
        if self.batches:
            batch_id = self.random.choice(self.batches)
            self.world.unsteady |= {batch_id, self.outer.get(batch_id, batch_id)}
            self.send(self.world.attach(batch_id, self.lanes()))

    def wait_for(self) -> None:
        if self.batches:
            on = self.random.choice([ContinueOn.SUCCEEDED, ContinueOn.FINISHED, ContinueOn.ENDED])
            waiter = self.world.waiter(self.random.choice(self.batches), self.random.randrange(LANES), on=on)
            assert waiter.parent is not None
            self.waiters[waiter.job_id] = waiter.parent
            self.send([waiter])

    def cancel(self) -> None:
        if self.batches and self.random.random() < 0.3:
            batch_id, running = self.random.choice(self.batches), self.random.random() < 0.5
            self.cancelled.add(batch_id)
            self.send([wire.CancelBatch(batch_id=batch_id, running=running)])

    def repeat(self) -> None:
        """A client that never heard of the outcome sends the same once more."""
        if self.sent and self.random.random() < 0.5:
            self.world.send_all(self.random.choice(self.sent[-5:]))

    def requeue(self) -> None:
        failed = [one for one, fold in self.world.folds.items() if fold.state is FAILED]
        if failed:
            job_id = self.random.choice(failed)
            extras = self.world.folds[job_id].extras
            if extras is not None and extras.batch is not None:
                self.world.unsteady |= {extras.batch, self.outer.get(extras.batch, extras.batch)}
            self.send([wire.RequeueJob(job_id=job_id)])

    def delete(self) -> None:
        if self.world.folds and self.random.random() < 0.3:
            self.world.send_all([wire.DeleteJob(job_id=self.random.choice(list(self.world.folds)))])

    def say(self) -> None:
        if self.world.runs:
            worker, run = self.world.runs[-1 - self.random.randrange(len(self.world.runs)) % 12]
            report: wire.AnyReport = done(run.job_id, run.lease, worker)
            if self.random.random() < 0.15:
                said = {"job_id": run.job_id, "lease": run.lease, "worker": worker}
                never = Retry(attempts=0)
                report = wire.RunFailed(**said, exception=BOOM, duration_ms=1.0, started_ms=NOW, retry=never)
            self.world.report(lane_of_job(run.job_id), report)

    def turn(self) -> None:
        few = self.random.choice([1, 3, 50])
        self.world.turn(self.random.randrange(LANES), few, self.random.choice([0, few]))

    def lose(self) -> None:
        self.world.turn(self.random.randrange(LANES), 5, 5, commits=False)

    def take_over(self) -> None:
        self.world.take_over(self.random.randrange(LANES))

    def announce(self) -> None:
        self.world.announce(self.random.randrange(4))

    def pass_(self) -> None:
        self.world.now_ms += self.random.choice([1, 200, 1_500, 11_000])

    def shuffle(self) -> None:
        """Reports of different lanes come in any order; those of one lane keep theirs."""
        partition = self.world.partitions[self.random.randrange(LANES)]
        unread = partition.reports[partition.read_reports :]
        places = [place for place, (value, _) in enumerate(unread) if b'"batch.counted"' in value]
        by_lane: dict[int, list[tuple[bytes, int]]] = {}
        for place in places:
            by_lane.setdefault(json.decode(unread[place][0])["lane"], []).append(unread[place])
        for place in places:
            lane = self.random.choice([lane for lane, left in by_lane.items() if left])
            unread[place] = by_lane[lane].pop(0)
        partition.reports[partition.read_reports :] = unread

    # --- the end ---

    def check_end(self) -> None:
        world = self.world
        for batch_id in self.batches:
            self.check_batch(batch_id)
        for waiter, parent in self.waiters.items():
            fold, state = world.folds[waiter], world.told[parent.job_id][-1][1].state
            assert world.started_from_waiting[waiter] <= 1
            seen = {data.state for _, data in world.told[parent.job_id]}
            if fold.state is AWAITING:
                assert verdict(parent.on, state) == "wait", (parent, state)
            elif world.started_from_waiting[waiter]:
                assert any(verdict(parent.on, one) == "run" for one in seen)

    def check_batch(self, batch_id: str) -> None:
        world, members = self.world, self.world.members[batch_id]
        last = world.told[batch_id][-1][1]
        states = [world.state(one) for one in members]
        known = [one for one in states if one is not None]
        assert (last.total, last.created) == (len(members), len(known)), (batch_id, last, states)
        ends = [last.succeeded, last.failed, last.deleted]
        assert ends == [known.count(state) for state in (SUCCEEDED, FAILED, DELETED)], (batch_id, last, states)
        assert last.cancelled is (batch_id in self.cancelled) or last.cancelled
        if last.state is not AWAITING:
            assert (last.state in FINAL_STATES) is all(one in FINAL_STATES for one in states), (
                batch_id,
                last,
                states,
            )
        if last.state is SUCCEEDED:
            assert set(known) <= {SUCCEEDED}
        if last.state is FAILED:
            assert FAILED in known


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_the_counts_are_exact_and_ends_are_told_once(seed: int) -> None:
    for story_seed in range(seed * 10, seed * 10 + 10):
        story = Story(story_seed)
        story.announce()
        for step in range(STEPS):
            story.random.choice(story.steps)()
            if step % 16 == 0:
                story.world.check()
        story.world.until_quiet(ms=2_000)
        story.check_end()
        assert story.world.decided_otherwise() == []


@pytest.mark.parametrize("seed", range(2))
def test_a_lane_that_was_rebuilt_from_events_goes_on_counting(seed: int) -> None:
    for story_seed in range(1_000 + seed * 5, 1_005 + seed * 5):
        story = Story(story_seed)
        story.announce()
        for step in range(STEPS):
            story.random.choice(story.steps)()
            if step % 60 == 30:
                story.world.rebuild(story.random.randrange(LANES))
                story.sent.clear()  # which additions were made before is not in the events
                story.world.check()
        story.world.until_quiet(ms=20_000)
        story.check_end()
