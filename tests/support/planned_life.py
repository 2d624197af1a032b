"""Jobs and batches that depend on each other, by a plan made at random, in as many lives as one likes.

The same seed gives the same jobs, whatever the retry policy is: a job's runs fail as often as the plan says. What
becomes of them does not depend on who is faster, so two lives differ only by their policies.
"""

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import Need, ParentKind
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.timestamps import format_time
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.rules import LaneRules
from joblog.streams.replay.stored import StoredBatch, StoredEvent, stored_fact
from msgspec import structs

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES, QUEUES, done
from tests.support.scene import BOOM, NOW

#: How often the runs of a job fail.
FAILURES: Final = (0, 0, 1, 1, 99)
ITEMS: Final = 12
QUIET: Final = 8


class Played:
    """A world in which runs fail as often as `fails` says of their jobs, and timers fire in time."""

    def __init__(self, pace: str = "") -> None:
        self.pace = Random(pace)
        self.world = BatchWorld()
        self.world.lanes = [Lane(number, LANES, LaneRules()) for number in range(LANES)]
        self.fails: dict[str, int] = {}

    def go_on(self, times: int) -> None:
        world = self.world
        for _ in range(times):
            world.announce(100)
            for number, lane in enumerate(world.lanes):
                for job in [one for one in lane.jobs.values() if one.worker is not None]:
                    world.report(number, self._outcome(job.id, job.attempt, job.lease, job.worker or ""))
            for timer in [one for one in world.timers if one.due_ms <= world.now_ms]:
                world.timers.remove(timer)
                due = wire.JobDue(job_id=timer.job_id, version=timer.version)
                world.report(lane_of_job(timer.job_id), due)
            for number in (*self.pace.sample(range(LANES), LANES), *range(LANES)):
                world.turn(number, 1_000, 1_000)
            world.now_ms += self.pace.choice((200, 400, 700))

    def _outcome(self, job_id: str, attempt: int, lease: int, worker: str) -> wire.AnyReport:
        if attempt > self.fails.get(job_id, 0):
            return done(job_id, lease, worker)
        said = {"job_id": job_id, "lease": lease, "worker": worker}
        return wire.RunFailed(**said, exception=BOOM, duration_ms=1.0, started_ms=NOW)

    def until_quiet(self) -> None:
        quiet = 0
        while quiet < QUIET:
            said = self._said()
            self.go_on(1)
            quiet = 0 if self._said() > said else quiet + 1
        self.world.check()

    def _said(self) -> int:
        return sum(len(one.events) for one in self.world.partitions) + sum(map(len, self.world.told.values()))


class PlannedLife(Played):
    """The life of one plan with one policy; `states` is where jobs and batches are at its end."""

    def __init__(self, seed: int, retry: Retry, failures: Sequence[int] = FAILURES) -> None:
        super().__init__(f"{seed} {retry}")
        self.failures = failures
        self.random, self.retry = Random(seed), retry
        self.jobs: list[str] = []
        self.batches: list[str] = []
        for _ in range(ITEMS):
            self._add()
            self.go_on(self.random.randrange(3))
        self.until_quiet()

    @property
    def states(self) -> dict[str, State | None]:
        return {one: self.world.state(one) for one in [*self.fails, *self.batches]}

    def _add(self) -> None:
        if self.random.random() < 0.4:
            self._add_batch()
            return
        job = self._job()
        kind = self.random.random()
        if kind < 0.3 and self.jobs:
            job = structs.replace(job, parent=wire.Parent(self.random.choice(self.jobs), self._on()))
        elif kind < 0.6 and len(self.jobs) > 2:
            parents = tuple(self.random.sample(self.jobs, self.random.choice((2, 3))))
            job = structs.replace(job, parents=wire.Parents(parents, self._on(), self.random.choice(list(Need))))
        elif kind < 0.9 and self.batches:
            parent = wire.Parent(self.random.choice(self.batches), self._on(), ParentKind.BATCH)
            job = structs.replace(job, parent=parent)
        self.world.send_all([job])
        self.jobs.append(job.job_id or "")

    def _add_batch(self) -> None:
        """One that may wait, with another one in it now and then."""
        parent, kind = None, self.random.random()
        if kind < 0.3 and self.jobs:
            parent = wire.Parent(self.random.choice(self.jobs), self._on())
        elif kind < 0.6 and self.batches:
            parent = wire.Parent(self.random.choice(self.batches), self._on(), ParentKind.BATCH)
        said: dict[str, Any] = {} if parent is None else {"parent": parent}
        batch_id = self.world.an_id(self._lane())
        inner: list[wire.Command] = []
        if self.random.random() < 0.4:
            held = {} if parent is None else {"parent": wire.Parent(batch_id, kind=ParentKind.BATCH)}
            inner = self._members(self.world.create(self._lanes(), self._lane(), batch=batch_id, **held))
            said["inner"] = (inner[0],)
        made = self._members(self.world.create(self._lanes(), batch_id=batch_id, **said))
        self.batches += [one.batch_id for one in (*inner, *made) if isinstance(one, wire.CreateBatch)]
        self.world.send_all([*made, *inner])

    def _members(self, commands: Sequence[wire.Command]) -> list[wire.Command]:
        """The commands of a batch, whose jobs fail as planned, and sometimes wait for each other."""
        found: list[wire.Command] = []
        before: list[str] = []
        for one in commands:
            made = one
            if isinstance(one, wire.CreateJob):
                made = structs.replace(one, retry=self.retry)
                if before and self.random.random() < 0.3:
                    made = structs.replace(made, parent=wire.Parent(self.random.choice(before), self._on()))
                self._plan(made.job_id or "")
                before.append(made.job_id or "")
            found.append(made)
        self.jobs += before
        return found

    def _job(self) -> wire.CreateJob:
        lane = self._lane()
        job = wire.CreateJob("t", queue=QUEUES[lane][0], job_id=self.world.an_id(lane), retry=self.retry)
        self._plan(job.job_id or "")
        return job

    def _plan(self, job_id: str) -> None:
        self.fails[job_id] = self.random.choice(self.failures)

    def _on(self) -> ContinueOn:
        return self.random.choice(list(ContinueOn))

    def _lane(self) -> int:
        return self.random.randrange(LANES)

    def _lanes(self) -> list[int]:
        return [self._lane() for _ in range(self.random.randrange(1, 5))]


def facts_of(world: BatchWorld) -> list[list[StoredEvent | StoredBatch]]:
    """The log of a world as it is read: what is told of jobs and batches in each lane."""
    found: list[list[StoredEvent | StoredBatch]] = [[] for _ in range(LANES)]

    def add(key: str, kind: str, event: Any) -> None:
        place = key, event.version
        time = format_time(world.at_ms[place])
        value = encode(wire.CloudEvent("1.0", "e", "/l", kind, key, time, None, world.causes[place], None, event))
        if (fact := stored_fact(value)) is not None:
            found[lane_of_job(key)].append(fact)

    for partition in world.partitions:
        for key, kind, event, _ in partition.events:
            add(key, kind, event)
    for batch_id, events in world.told.items():
        for kind, event in events:
            add(batch_id, kind, event)
    return found
