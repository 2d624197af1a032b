"""Lanes whose jobs have limits, and a reader of their log who says when one is broken."""

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from random import Random
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.relations import RATES, LimitKind
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.contract.wire import Limit
from joblog.streams.elector.lane_records import write_state
from joblog.streams.lane.event_fold import EventFold
from joblog.streams.lane.features.limits import Limits
from joblog.streams.lane.limits.claims import id_of
from joblog.streams.lane.limits.records import LimitId
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.transitions import Election
from msgspec import structs

from tests.support.lane_world import DAY_MS, LANES, QUEUES, UNWANTED, World, done
from tests.support.scene import BOOM, NOW, STARTED_AT


class LimitsWorld(World):
    """A world whose electors' clocks differ by `skews_ms`; the log is checked as it is written."""

    def __init__(self, limits: Sequence[Limit], skews_ms: Sequence[int] = (0, 0, 0)) -> None:
        super().__init__()
        self.limits = {id_of(limit): limit for limit in limits}
        self.skews_ms = skews_ms
        self.held: dict[LimitId, set[str]] = {one: set() for one in self.limits}
        self.starts: dict[LimitId, list[int]] = {one: [] for one in self.limits}
        self.most: dict[LimitId, int] = dict.fromkeys(self.limits, 0)
        self.limits_of: dict[str, tuple[Limit, ...]] = {}
        self.reports_sent = 0
        self.log: list[tuple[str, wire.JobEvent, int]] = []
        self._number = 0

    def create(self, lane: int, *limits: Limit, **fields: Any) -> str:
        job_id = new_job_id(lane, self.now_ms, len(self.limits_of))
        self.limits_of[job_id] = limits
        queue = QUEUES[lane][0]
        self.send(wire.CreateJob("t", queue=queue, job_id=job_id, limits=limits, **fields), lane)
        return job_id

    def announce(self, lane: int, slots: int, name: str = "w") -> None:
        queues = tuple(QUEUES[lane])
        said = wire.WorkerAnnounced(
            worker=f"{name}{lane}", partition=0, queues=queues, all_queues=queues, slots=slots, all_slots=slots,
            tasks=("t",), started_at=STARTED_AT,
        )  # fmt: skip
        self.report(lane, said)

    def running(self, lane: int) -> list[wire.RunSucceeded]:
        jobs = self.lanes[lane].jobs.values()
        return [done(job.id, job.lease, job.worker) for job in jobs if job.worker is not None]

    def feature(self, lane: int) -> Limits:
        return next(one for one in self.lanes[lane].features if isinstance(one, Limits))

    def turn(self, number: int, commands: int, reports: int, *, commits: bool = True) -> None:
        self._number = number
        super().turn(number, commands, reports, commits=commits)

    def _election(self) -> Election:
        one = super()._election()
        now_ms = self.now_ms + self.skews_ms[self._number]
        return Election(now_ms, one.clock_ms, one.elect, one.watched)

    def _commit(self, number: int, out: LaneOutput) -> None:
        at_ms = self._election().now_ms
        for key, _, _, data, _, _ in out.events:
            if isinstance(data, wire.JobEvent) and key in self.limits_of and data.note is None and data.name is None:
                self._read(key, data.state, at_ms)
        self.reports_sent += len(out.reports)
        super()._commit(number, out)

    def _fold(self, key: str, event: wire.JobEvent, cause: str | None) -> None:
        skew_ms = self.skews_ms[self._number]
        self.now_ms += skew_ms
        self.log.append((key, event, self.now_ms))
        super()._fold(key, event, cause)
        self.now_ms -= skew_ms

    def _read(self, job_id: str, state: State, at_ms: int) -> None:
        for limit in self.limits_of[job_id]:
            one = id_of(limit)
            if limit.kind in RATES:
                if state is State.PROCESSING:
                    insort(self.starts[one], at_ms)
            elif state is State.PROCESSING:
                self.held[one].add(job_id)
                self.most[one] = max(self.most[one], len(self.held[one]))
                assert len(self.held[one]) <= self.limits[one].capacity, (one, self.held[one])
            else:
                self.held[one].discard(job_id)

    def rebuild(self, lane: int) -> None:
        """`state` of a lane is lost, and made anew from the events of all lanes."""
        fold = EventFold(lane, 10_000, LANES)
        for key, event, at_ms in self.log:
            fold.apply(key, event, at_ms, None)
        records = fold.state(self.now_ms + self.skews_ms[lane])
        self.partitions[lane].state = {key: write_state(value) or b"" for key, value in records.items()}
        self.take_over(lane)

    def finish(self) -> None:
        """Workers are there, and what runs succeeds, until nothing is left to do."""
        for turns in range(2_000):
            if turns % 10 == 0:
                for lane in range(LANES):
                    self.announce(lane, 100)
            for lane in range(LANES):
                for report in self.running(lane):
                    self.report(lane, report)
            for lane in range(LANES):
                self.turn(lane, 1000, 1000)
            live = [job for lane in self.lanes for job in lane.jobs.values()]
            if not live and all(partition.is_read for partition in self.partitions):
                self.check()
                return
            self.now_ms += 200 if any(job.state is not State.FAILED for job in live) else DAY_MS + 1
        raise AssertionError(live)

    def check_rates(self) -> None:
        """No window of any rate holds more starts than its capacity, by the times of their events."""
        for one, starts in self.starts.items():
            limit = self.limits[one]
            capacity, interval_ms = limit.capacity, round((limit.interval_s or 0) * 1000)
            for first, at_ms in enumerate(starts):
                if limit.kind is LimitKind.SLIDING_WINDOW:
                    assert first < capacity or at_ms - starts[first - capacity] >= interval_ms, (one, first)
                elif limit.kind is LimitKind.FIXED_WINDOW:
                    assert first < capacity or starts[first - capacity] // interval_ms < at_ms // interval_ms
                else:
                    for last in range(first + capacity, min(len(starts), first + 4 * capacity)):
                        time_ms = starts[last] - at_ms
                        assert (last - first + 1 - capacity) * interval_ms <= time_ms * capacity, (one, first, last)


def chaos(world: LimitsWorld, random: Random, steps: int) -> None:
    """Jobs come, run, fail, are deleted and moved; lanes are late, lose turns and are loaded again."""
    for lane in range(LANES):
        world.announce(lane, 3)
    whims, weights = zip(*WHIMS.items(), strict=True)
    for whim in random.choices(whims, weights, k=steps):
        whim(world, random, random.randrange(LANES))


def _create(world: LimitsWorld, random: Random, lane: int) -> None:
    chosen = random.sample(list(world.limits.values()), random.choice((1, 1, 1, 2, 3)))
    limits = [structs.replace(limit, tenant=random.choice((None, "x", "y"))) for limit in chosen]
    lasts_s = random.choice((None, None, None, None, 0.5, 3.0))
    deadline = None if lasts_s is None else EPOCH + timedelta(milliseconds=world.now_ms + round(lasts_s * 1000))
    expires_in_s = random.choice((None, None, None, 0.3, 2.0))
    priority = random.choice((0, 0, 0, 5, UNWANTED))
    world.create(lane, *limits, priority=priority, deadline=deadline, expires_in_s=expires_in_s)


def _end(world: LimitsWorld, random: Random, lane: int) -> None:
    for report in world.running(lane):
        if random.random() < 0.7:
            world.report(lane, report)


def _change(world: LimitsWorld, random: Random, lane: int) -> None:
    if not world.lanes[lane].jobs:
        return
    job = random.choice(list(world.lanes[lane].jobs.values()))
    run_at = EPOCH + timedelta(milliseconds=world.now_ms + random.choice((0, 2_000)))
    commands: list[wire.Command] = [
        wire.DeleteJob(job_id=job.id),
        wire.RequeueJob(job_id=job.id),
        wire.RescheduleJob(job_id=job.id, run_at=run_at),
    ]
    world.send(random.choice(commands), lane)


def _stumble(world: LimitsWorld, random: Random, lane: int) -> None:
    running = world.running(lane)
    if running:
        one = random.choice(running)
        said = {"job_id": one.job_id, "lease": one.lease, "worker": one.worker}
        failed = wire.RunFailed(**said, exception=BOOM, duration_ms=1.0, started_ms=NOW)
        world.report(lane, random.choice((failed, wire.RunReleased(**said, reason="drained"))))


def _announce(world: LimitsWorld, random: Random, lane: int) -> None:
    world.announce(lane, random.choice((0, 1, 3, 5)))


def _pause(world: LimitsWorld, random: Random, _lane: int) -> None:
    world.now_ms += random.choice((100, 100, 1_500, 1_500, 4_000, 16_000))


def _lose(world: LimitsWorld, random: Random, lane: int) -> None:
    world.turn(lane, random.randrange(5), random.randrange(8), commits=False)


def _take_over(world: LimitsWorld, _random: Random, lane: int) -> None:
    world.take_over(lane)


def _rebuild(world: LimitsWorld, random: Random, lane: int) -> None:
    if random.random() < 0.3:
        world.rebuild(lane)


def _turn(world: LimitsWorld, random: Random, lane: int) -> None:
    world.now_ms += random.choice((1, 10, 50))
    world.turn(lane, random.choice((1, 3, 100)), random.choice((0, 1, 3, 100)))


WHIMS: Final[Mapping[Callable[[LimitsWorld, Random, int], None], int]] = {
    _create: 15,
    _end: 15,
    _change: 4,
    _stumble: 2,
    _announce: 4,
    _pause: 3,
    _lose: 3,
    _take_over: 3,
    _rebuild: 1,
    _turn: 51,
}
