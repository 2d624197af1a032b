"""Lanes that share a queue with a limit, which is set, changed and taken away; whoever reads their log checks it."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.ids import lane_of_job, lane_of_shard, new_job_id
from joblog.streams.contract.relations import RATES, LimitKind, LimitScope
from joblog.streams.contract.states import State
from joblog.streams.elector.lane_records import write_state
from joblog.streams.lane.event_fold import EventFold
from joblog.streams.lane.job import is_transition
from joblog.streams.lane.limits.gate import SharedGate
from joblog.streams.lane.output import LaneOutput

from tests.support import limits_world
from tests.support.lane_world import LANES, WIDE
from tests.support.limits_world import LimitsWorld
from tests.support.scene import STARTED_AT

MUTEX: Final = wire.Limit(LimitKind.MUTEX, "m")


class QueueLimitsWorld(LimitsWorld):
    """The world; `settings` are those of the limit in the order in which its owner wrote them.

    - owner: the first of `shards`, which are all lanes: any of them may have jobs of the queue.
    """

    def __init__(self, skews_ms: tuple[int, int, int] = (0, 0, 0), queue: str = WIDE) -> None:
        super().__init__((MUTEX,), skews_ms)
        self.queue = queue
        self.shards = tuple(lane_of_shard(queue, LANES, shard) for shard in range(LANES))
        self.owner = self.shards[0]
        self.settings: list[wire.LimitChanged] = []
        #: How many of the settings each lane has written.
        self.known: dict[int, int] = defaultdict(int)
        self.starts_under: dict[int, list[int]] = defaultdict(list)
        self.checked = self.at_capacity = 0
        self.controls: list[list[tuple[str, bytes]]] = [[] for _ in range(LANES)]

    def announce(self, lane: int, slots: int, name: str = "w") -> None:
        said = wire.WorkerAnnounced(
            worker=f"{name}{lane}", partition=0, queues=(self.queue,), all_queues=(self.queue,), slots=slots,
            all_slots=slots, tasks=("t",), started_at=STARTED_AT,
        )  # fmt: skip
        self.report(lane, said)

    def create(self, lane: int, *limits: wire.Limit, **fields: Any) -> str:
        lane = self.shards[lane % len(self.shards)]
        job_id = new_job_id(lane, self.now_ms, len(self.limits_of))
        self.limits_of[job_id] = limits
        self.send(wire.CreateJob("t", queue=self.queue, job_id=job_id, limits=limits, **fields), lane)
        return job_id

    def set_limit(self, kind: LimitKind, capacity: int | None, interval_s: float | None = None) -> None:
        said = wire.SetLimit(
            kind=kind, key=self.queue, scope=LimitScope.QUEUE, capacity=capacity, interval_s=interval_s
        )
        self.send(said, self.owner)

    def gate(self, lane: int) -> SharedGate | None:
        found = self.lanes[lane].pipeline.store.gates.get(self.queue)
        assert found is None or isinstance(found, SharedGate)
        return found

    def _commit(self, number: int, out: LaneOutput) -> None:
        for key, kind, _, data, _, _ in out.events:
            if isinstance(data, wire.LimitChanged):
                assert key == self.queue
                self.controls[number].append((kind, encode(data)))
        events, out.events = out.events, []
        for one in events:  # in their order, as a reader of the log sees them
            if isinstance(one[3], wire.LimitChanged):
                self.known[number] += 1
                if number == self.owner:
                    self.settings.append(one[3])
            out.events = [one]
            if one is events[-1]:
                break
            super()._commit(number, LaneOutput(events=[one]))
        super()._commit(number, out)

    def _fold(self, key: str, event: wire.JobEvent, cause: str | None) -> None:
        super()._fold(key, event, cause)
        if event.state is State.PROCESSING and is_transition(event):
            self._started(lane_of_job(key), self.now_ms + self.skews_ms[lane_of_job(key)])

    def _started(self, lane: int, at_ms: int) -> None:
        """A start keeps to the setting that its lane has heard of, or to one that came since."""
        if not self.known[lane]:
            return
        since = self.settings[self.known[lane] - 1 :]
        if any(one.capacity is None for one in since):
            return
        if since[0].kind in RATES:
            self.starts_under[self.known[lane] - 1].append(at_ms)
            return
        if any(one.kind in RATES for one in since):
            return
        running = sum(job.state is State.PROCESSING for job in self.folds.values())
        allowed = max(one.capacity or 0 for one in since)
        assert running <= allowed, (running, allowed)
        self.checked += 1
        self.at_capacity += running == allowed

    def check_rates(self) -> None:
        """Of no rate more jobs started in its interval than it allows, by the times of their events."""
        super().check_rates()
        for number, starts in self.starts_under.items():
            rate = self.settings[number]
            times, capacity = sorted(starts), rate.capacity or 0
            interval_ms = round((rate.interval_s or 0) * 1000)
            for first, after in zip(times, times[capacity:], strict=False):
                if rate.kind is LimitKind.SLIDING_WINDOW:
                    assert after - first >= interval_ms, (rate, first, after)
                elif rate.kind is LimitKind.FIXED_WINDOW:
                    assert after // interval_ms > first // interval_ms, (rate, first, after)
            if rate.kind is LimitKind.TOKEN_BUCKET:
                for first, at_ms in enumerate(times):
                    for last in range(first + capacity, min(len(times), first + 4 * capacity)):
                        assert (last - first + 1 - capacity) * interval_ms <= (times[last] - at_ms) * capacity

    def rebuild(self, lane: int) -> None:
        """`state` of a lane is lost, and made anew from the events of all lanes."""
        fold = EventFold(lane, 10_000, LANES)
        for key, event, at_ms in self.log:
            fold.apply(key, event, at_ms, None)
        for kind, data in self.controls[lane]:
            fold.controls.apply(kind, data)
        records = fold.state(self.now_ms + self.skews_ms[lane])
        self.partitions[lane].state = {key: write_state(value) or b"" for key, value in records.items()}
        self.take_over(lane)

    def settled(self) -> None:
        """When nothing runs and nothing waits, nothing is out."""
        for _ in range(20):
            for lane in range(LANES):
                self.turn(lane, 1000, 1000)
            self.now_ms += 1_000
        if len(self.shards) == 1:
            return
        owner = self.lanes[self.owner].pipeline.store.owners.get(self.queue)
        assert (owner is None) is (not self.settings or self.settings[-1].capacity is None)
        for lane in self.shards:
            gate = self.gate(lane)
            assert (gate is None) is (owner is None)
            if gate is not None and owner is not None:
                assert (gate.share.number, gate.running) == (owner.record.number, 0)
                assert (gate.share.units, gate.share.permits, gate.share.asked) == (0, [], 0)
        if owner is not None:
            assert not owner.record.silent
            assert not owner.record.line
            assert not any(part.units or part.permits or part.wants for part in owner.record.parts.values())


Whim = Callable[[Any, Random, int], None]


def _create(world: QueueLimitsWorld, random: Random, lane: int) -> None:
    limits = (MUTEX,) if random.random() < 0.1 else ()
    world.create(lane, *limits, priority=random.choice((0, 0, 0, 5)))


def _set(world: QueueLimitsWorld, random: Random, _lane: int) -> None:
    kind = random.choice((None, LimitKind.MUTEX, *[LimitKind.SEMAPHORE] * 4, *sorted(RATES)))
    if kind is None or kind is LimitKind.MUTEX:
        world.set_limit(LimitKind.MUTEX, 1 if kind is not None else None)
    else:
        world.set_limit(kind, random.choice((1, 2, 3, 5)), random.choice((0.3, 1.0)) if kind in RATES else None)


def whims(sets: int, rebuilds: int) -> Mapping[Whim, int]:
    """What happens, and how often each."""
    return {
        **limits_world.WHIMS,
        limits_world._create: 0,  # its jobs have limits of their own
        limits_world._rebuild: rebuilds,
        _create: 15,
        _set: sets,
    }


def chaos(world: QueueLimitsWorld, random: Random, steps: int, sets: int = 1, rebuilds: int = 1) -> None:
    """Jobs of one queue come, run, fail, are deleted; its limit changes; lanes are late, or are loaded again."""
    for lane in world.shards:
        world.announce(lane, 3)
    _set(world, random, world.owner)
    kinds, weights = zip(*whims(sets, rebuilds).items(), strict=True)
    for whim in random.choices(kinds, weights, k=steps):
        whim(world, random, random.choice(world.shards))
