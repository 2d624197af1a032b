"""Whatever happens, in whatever order, and whoever dies: what must be true of lanes is true."""

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job, lane_of_queue, new_job_id
from joblog.streams.contract.relations import Need, UniquePolicy, UniqueUntil
from joblog.streams.contract.retry import Curve, OnExceeded, Retry
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.contract.timestamps import EPOCH
from msgspec import Raw, json

from tests.support.lane_world import DAY_MS, LANES, NOW, QUEUES, SHARDED, UNBORN, UNLUCKY, UNWANTED, World, done
from tests.support.scene import BOOM, STARTED_AT

#: The jobs that commands name; a job only waits for one further left, so that none can wait for itself.
JOBS = [new_job_id(n % LANES, NOW, n) for n in range(3 * LANES)]
#: The workers, and the lanes in which they work.
WORKERS = {"v": (0,), "w": (0, 1, 2), "x": (1, 2)}
FIRST_OF_SHARDS = lane_of_queue(SHARDED, LANES)
RETRIES = [
    None,
    Retry(attempts=0),
    Retry(attempts=0, on_exceeded=OnExceeded.DELETE),
    Retry(attempts=1, curve=Curve.FIXED, delays_s=(0.0,), count_lost=True),
    Retry(attempts=2, curve=Curve.FIXED, delays_s=(5.0,), lost_max=0),
]

lanes = st.integers(0, LANES - 1)
jobs = st.integers(0, len(JOBS) - 1)
workers = st.sampled_from(sorted(WORKERS))
few = st.integers(0, 4)
delays_ms = st.sampled_from([-1, 0, 1, 1_000, 20_000, DAY_MS])


def seldom(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One of these, and more often none."""
    return st.sampled_from([False, False, True]).flatmap(lambda wanted: values if wanted else st.none())


def queues_of(lane: int) -> tuple[str, ...]:
    """Those that live in a lane."""
    has_shard = (lane - FIRST_OF_SHARDS) % LANES < 2
    return (*QUEUES[lane], SHARDED) if has_shard else tuple(QUEUES[lane])


class Lanes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(slots=st.integers(0, 3), many=st.booleans())
    def begin(self, slots: int, many: bool) -> None:
        """Most lives begin in order: some jobs, and workers that are there."""
        for job, job_id in enumerate(JOBS):
            if many and job % 2:
                lane = lane_of_job(job_id)
                self.world.send(wire.CreateJob("t", queue=queues_of(lane)[0], job_id=job_id), lane)
        for worker in WORKERS:
            self.announce(worker, slots, knows_rare=False, only=None)
        self.turn_of_all()

    # --- commands ---

    @rule(
        job=jobs,
        parent=seldom(jobs),
        parents=seldom(st.tuples(st.lists(jobs, min_size=1, max_size=3), st.sampled_from(Need))),
        on=st.sampled_from(ContinueOn),
        delay_ms=st.none() | delays_ms,
        retry=st.sampled_from(RETRIES),
        priority=st.sampled_from([0, 0, 5, UNWANTED, UNLUCKY, UNBORN]),
        task=st.sampled_from(["t", "t", "rare"]),
        which=few,
        astray=seldom(lanes),
        deadline_ms=seldom(delays_ms),
        expires_in_s=seldom(st.sampled_from([1.0, 20.0])),
    )
    def create(
        self, job: int, parent: int | None, on: ContinueOn, which: int, astray: int | None, **said: Any
    ) -> None:
        lane = lane_of_job(JOBS[job])
        queue = queues_of(lane)[which % len(queues_of(lane))]
        awaited = None if parent is None or parent >= job else wire.Parent(JOBS[parent], on)
        several = [] if said["parents"] is None else [JOBS[one] for one in said["parents"][0] if one < job]
        self.world.send(
            wire.CreateJob(
                said["task"],
                queue=queue,
                job_id=JOBS[job],
                parent=awaited,
                parents=None if awaited or not several else wire.Parents(tuple(several), on, said["parents"][1]),
                run_at=self._instant(said["delay_ms"]),
                retry=said["retry"],
                priority=said["priority"],
                deadline=self._instant(said["deadline_ms"]),
                expires_in_s=said["expires_in_s"],
            ),
            lane if astray is None else astray,
        )

    @rule(
        key=st.sampled_from("kl"), queue=st.sampled_from([SHARDED, *(one for (one,) in QUEUES.values())]), lane=lanes
    )
    def create_once(self, key: str, queue: str, lane: int) -> None:
        self.world.send(wire.CreateJob("t", queue=queue, idempotency_key=key), lane)

    @rule(
        key=st.sampled_from("kl"),
        queue=st.sampled_from([SHARDED, QUEUES[0][0]]),
        policy=st.sampled_from(UniquePolicy),
        until=st.sampled_from([UniqueUntil.END, *UniqueUntil]),
        lane=lanes,
        **{one: st.sampled_from([1.0, 30.0]) for one in ("period_s", "wait_s")},
        retry=st.sampled_from(RETRIES),
        priority=st.sampled_from([0, 0, UNWANTED, UNLUCKY, UNBORN]),
        idempotency_key=seldom(st.sampled_from("ab")),
    )
    def create_unique(self, key: str, policy: UniquePolicy, until: UniqueUntil, lane: int, **said: Any) -> None:
        period_s, wait_s = said.pop("period_s"), said.pop("wait_s")
        unique = wire.Unique(
            key,
            policy,
            until,
            period_s if until is UniqueUntil.PERIOD else None,
            wait_s if policy is UniquePolicy.DEBOUNCE else None,
        )
        self.world.send(wire.CreateJob("t", **said, unique=unique), lane)

    @precondition(lambda self: self.world.folds)
    @rule(
        job=st.integers(0, 20),
        kind=st.sampled_from(
            [
                wire.DeleteJob,
                wire.RequeueJob,
                wire.RescheduleJob,
                wire.SetParameter,
                wire.SetPriority,
                wire.MoveJob,
            ]
        ),
        version=seldom(st.integers(1, 4)),
        state=seldom(st.sampled_from(State)),
        delay_ms=delays_ms,
        with_snapshot=st.sampled_from([True, True, False]),
        stale=st.sampled_from([0, 0, 0, 1]),
    )
    def change(self, job: int, kind: type, version: int | None, state: State | None, **said: Any) -> None:
        job_id = [*self.world.folds, JOBS[0]][job % (len(self.world.folds) + 1)]
        fields: dict[str, Any] = {"job_id": job_id, "expected_version": version, "expected_state": state}
        if kind is wire.RescheduleJob:
            fields["run_at"] = self._instant(said["delay_ms"])
        if kind is wire.SetParameter:
            fields |= {"name": "p", "value": said["delay_ms"]}
        elif kind is wire.SetPriority:
            fields["priority"] = min(said["delay_ms"], 1_000)
        elif kind is wire.MoveJob:
            fields["queue"] = queues_of(lane_of_job(job_id))[-1]
        elif said["with_snapshot"]:
            fields["snapshot"] = self._snapshot(job_id, said["stale"])
        self.world.send(kind(**fields), lane_of_job(job_id))

    def _instant(self, delay_ms: int | None) -> Any:
        return None if delay_ms is None else EPOCH + timedelta(milliseconds=self.world.now_ms + delay_ms)

    def _snapshot(self, job_id: str, stale: int) -> wire.Snapshot | None:
        """What a projection knows of the job; perhaps an event too little."""
        fold = self.world.folds.get(job_id)
        if fold is None or fold.version <= stale:
            return None
        return wire.Snapshot(
            fold.version - stale,
            fold.state,
            fold.attempt,
            fold.task,
            fold.queue,
            EPOCH + timedelta(milliseconds=fold.created_ms),
            json.decode(fold.spec, type=wire.JobSpec),
            json.decode(fold.parameters, type=dict[str, Raw]),
        )

    # --- workers ---

    @rule(worker=workers, slots=st.integers(0, 3), knows_rare=st.booleans(), only=seldom(lanes))
    def announce(self, worker: str, slots: int, knows_rare: bool, only: int | None) -> None:
        for lane in WORKERS[worker]:
            if only is None or only == lane:
                self.world.report(lane, self._announcement(worker, lane, slots, knows_rare))

    def _announcement(self, worker: str, lane: int, slots: int, knows_rare: bool) -> wire.WorkerAnnounced:
        return wire.WorkerAnnounced(
            worker=worker,
            partition=0,
            queues=queues_of(lane),
            all_queues=queues_of(lane),
            slots=slots,
            all_slots=3,
            tasks=("t", "rare") if knows_rare else ("t",),
            started_at=STARTED_AT,
            home=lane == WORKERS[worker][0],
        )

    @rule(worker=workers, lane=lanes)
    def stop(self, worker: str, lane: int) -> None:
        self.world.report(lane, wire.WorkerStopping(worker=worker))

    @precondition(lambda self: self.world.runs)
    @rule(
        back=st.sampled_from([0, 0, 1, 2, 3, 9]),
        ending=st.sampled_from(["well", "badly", "unrun", "unfinished", "on"]),
    )
    def say(self, back: int, ending: str) -> None:
        """A worker speaks of a run that it was told of, perhaps of one that is not its own any more."""
        worker, run = self.world.runs[-1 - back % len(self.world.runs)]
        said = {"job_id": run.job_id, "lease": run.lease, "worker": worker}
        reports: dict[str, wire.AnyReport] = {
            "well": done(run.job_id, run.lease, worker),
            "badly": wire.RunFailed(**said, exception=BOOM, duration_ms=1.0, started_ms=NOW),
            "unrun": wire.RunReleased(**said, reason="drained"),
            "unfinished": wire.RunReleased(**said, reason="drained", started=True),
            "on": wire.RunProgressed(**said, progress=0.5, text="half", lines=("a line",)),
        }
        self.world.report(lane_of_job(run.job_id), reports[ending])

    # --- what the log and the clock do ---

    @precondition(lambda self: self.world.timers)
    @rule(back=st.integers(0, 5))
    def fire(self, back: int) -> None:
        """A timer fires: in time, late, early or again."""
        timer = self.world.timers[-1 - back % len(self.world.timers)]
        due = wire.JobDue(job_id=timer.job_id, version=timer.version)
        self.world.report(lane_of_job(timer.job_id), due)

    @rule(lane=lanes, which=st.integers(0, 50))
    def repeat(self, lane: int, which: int) -> None:
        reports = self.world.partitions[lane].reports
        if reports:
            reports.append((reports[which % len(reports)][0], self.world.now_ms))

    @rule(lane=lanes, seed=st.randoms(use_true_random=False))
    def reorder(self, lane: int, seed: Any) -> None:
        partition = self.world.partitions[lane]
        unread = partition.reports[partition.read_reports :]
        seed.shuffle(unread)
        partition.reports[partition.read_reports :] = unread

    @rule(ms=st.sampled_from([1, 1_000, 4_000, 16_000, 61_000, DAY_MS + 1]))
    def wait(self, ms: int) -> None:
        self.world.now_ms += ms

    # --- electors ---

    @rule(lane=lanes, commands=few, reports=few)
    def turn(self, lane: int, commands: int, reports: int) -> None:
        self.world.turn(lane, commands, reports)

    @rule()
    def turn_of_all(self) -> None:
        for lane in range(LANES):
            self.world.turn(lane, 100, 100)

    @rule(lane=lanes, commands=few, reports=few)
    def lose_a_turn(self, lane: int, commands: int, reports: int) -> None:
        self.world.turn(lane, commands, reports, commits=False)

    @rule(lane=lanes)
    def take_over(self, lane: int) -> None:
        self.world.take_over(lane)

    # --- what must be true ---

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.settle(self._all_announce)
        assert all(job.state in FINAL_STATES for job in self.world.folds.values())

    def _all_announce(self) -> None:
        for worker, where in WORKERS.items():
            for lane in where:
                self.world.report(lane, self._announcement(worker, lane, 100, knows_rare=True))


Lanes.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
TestLanes = Lanes.TestCase
