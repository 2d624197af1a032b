"""A random life of several lanes whose jobs share limits and keys, belong to batches, and wait for each other."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from joblog.services.worker.served_lanes import SERVED_S
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import LimitKind, Need, ParentKind, UniquePolicy, UniqueUntil
from joblog.streams.contract.retry import Curve, Retry
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from msgspec import Raw, structs

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES, QUEUES, World, done
from tests.support.relations_audit import Audit
from tests.support.scene import BOOM, STARTED_AT

#: Limits that jobs of all lanes share; those of one key always say the same.
LIMITS: Final = (
    wire.Limit(LimitKind.MUTEX, "m0"),
    wire.Limit(LimitKind.MUTEX, "m1"),
    wire.Limit(LimitKind.SEMAPHORE, "s", 2),
    wire.Limit(LimitKind.SLIDING_WINDOW, "w", 3, 2.0),
    wire.Limit(LimitKind.FIXED_WINDOW, "f", 3, 2.0),
    wire.Limit(LimitKind.TOKEN_BUCKET, "t", 3, 3.0),
)
WORKERS: Final = ("v", "w")
RETRY: Final = Retry(attempts=1, curve=Curve.FIXED, delays_s=(1.0,))
SLOTS: Final = 4
#: Those who wait for a mutex end one after the other.
TURNS_TO_END: Final = 3_000


class RelationsWorld(BatchWorld):
    """The world, audited after each event."""

    def __init__(self) -> None:
        super().__init__()
        self.audit = Audit()

    def _fold(self, key: str, event: wire.JobEvent, cause: str | None) -> None:
        super()._fold(key, event, cause)
        self.audit.take(self.folds[key], event, self.now_ms)


class Life:
    """Steps at random; the same seed gives the same life."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = RelationsWorld()
        self.batches: list[str] = []
        self._runs_told = 0
        self._running: list[tuple[str, wire.RunJob]] = []
        self._steps: list[tuple[int, Callable[[], None]]] = [
            (30, self._turn),
            (3, self._lose_a_turn),
            (2, self._take_over),
            (10, self._create),
            (1, self._create_batch),
            (14, self._run_ends),
            (3, self._change),
            (8, self._wait),
            (1, self._lose_a_worker),
            (4, self._fire),
        ]
        self._announce(WORKERS)

    def step(self) -> None:
        weights, actions = zip(*self._steps, strict=True)
        self.random.choices(actions, weights)[0]()

    def end(self) -> None:
        """All that is left ends, and no limit is left held."""
        self.world.settle(lambda: self._announce(WORKERS), TURNS_TO_END, checked_each=50)
        self.world.until_quiet()
        assert all(job.state in FINAL_STATES for job in self.world.folds.values())
        assert not any(self.world.audit.holders.values())
        self._check_batches()

    def _check_batches(self) -> None:
        """Each has ended, and counts what became of its jobs, as the log tells it."""
        for batch_id in self.batches:
            last = self.world.told[batch_id][-1][1]
            states = [self.world.state(one) for one in self.world.members[batch_id]]
            ends = [states.count(state) for state in (State.SUCCEEDED, State.FAILED, State.DELETED)]
            assert [last.succeeded, last.failed, last.deleted] == ends
            assert last.state in FINAL_STATES

    # --- electors ---

    def _turn(self) -> None:
        lane, pick = self.random.randrange(LANES), self.random.choice
        self.world.turn(lane, pick((0, 1, 3, 50)), pick((1, 3, 50)))

    def _lose_a_turn(self) -> None:
        self.world.turn(self.random.randrange(LANES), 5, 5, commits=False)

    def _take_over(self) -> None:
        self.world.take_over(self.random.randrange(LANES))

    # --- what clients ask ---

    def _create(self) -> None:
        lane = self.random.randrange(LANES)
        fields = {"queue": QUEUES[lane][0], "job_id": self.world.an_id(lane), **self._features()}
        if self.batches and self.random.random() < 0.1:
            fields["parent"] = wire.Parent(self.random.choice(self.batches), ContinueOn.ENDED, ParentKind.BATCH)
        elif len(self.world.folds) > 3 and self.random.random() < 0.1:
            fields["parents"] = self._parents()
        self.world.send(wire.CreateJob("t", **fields), lane)

    def _create_batch(self) -> None:
        """Jobs in several lanes, in one transaction."""
        lanes = [self.random.randrange(LANES) for _ in range(6)]
        first, *rest = self.world.create(lanes, self.random.randrange(LANES))
        self.batches.append(first.batch_id)
        self.world.unsteady.add(first.batch_id)  # some of its jobs may be refused for their keys
        jobs = [structs.replace(one, **self._features()) if isinstance(one, wire.CreateJob) else one for one in rest]
        self.world.send_all([first, *jobs])

    def _features(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"retry": RETRY, "priority": self.random.choice((0, 0, 1))}
        kind = self.random.random()
        if kind < 0.6:
            fields["limits"] = tuple(self.random.sample(LIMITS, self.random.choice((1, 1, 1, 2, 3))))
        elif kind < 0.8:
            policy = self.random.choice((UniquePolicy.REJECT, UniquePolicy.EXISTING, UniquePolicy.REPLACE))
            fields["unique"] = wire.Unique(self.random.choice("ab"), policy, UniqueUntil.END)
        return fields

    def _parents(self) -> wire.Parents:
        known = self.random.sample(sorted(self.world.folds)[-20:], 2)
        return wire.Parents(tuple(known), ContinueOn.ENDED, self.random.choice(tuple(Need)))

    def _change(self) -> None:
        live = [job for job in self.world.folds.values() if job.state not in FINAL_STATES]
        if live:
            job = self.random.choice(live)
            kind = self.random.choice((wire.DeleteJob, wire.RequeueJob, wire.SetParameter, wire.MoveJob))
            more: dict[str, Any] = {"name": "p", "value": Raw(b"1")} if kind is wire.SetParameter else {}
            if kind is wire.MoveJob:
                more = {"queue": QUEUES[self.random.randrange(LANES)][0]}
            self.world.send(kind(job_id=job.id, **more), lane_of_job(job.id))

    # --- workers, and time ---

    def _run_ends(self) -> None:
        self._running += self.world.runs[self._runs_told :]
        self._runs_told = len(self.world.runs)
        if not self._running:
            return
        worker, run = self._running.pop(self.random.randrange(len(self._running)))
        said = {"job_id": run.job_id, "lease": run.lease, "worker": worker}
        report: wire.AnyReport = done(run.job_id, run.lease, worker)
        how = self.random.random()
        if how < 0.15:
            report = wire.RunFailed(**said, exception=BOOM, duration_ms=1.0, started_ms=0)
        elif how < 0.25:
            report = wire.RunReleased(**said, reason="drained")
        self.world.report(lane_of_job(run.job_id), report)

    def _lose_a_worker(self) -> None:
        """One worker does not renew for long, and what it runs is lost."""
        lost = self.random.choice(WORKERS)
        self._running = [(worker, run) for worker, run in self._running if worker != lost]
        self.world.serves = {one: at for one, at in self.world.serves.items() if one[0] != lost}
        self.world.now_ms += 16_000
        self._announce([one for one in WORKERS if one != lost])
        for lane in range(LANES):
            self.world.turn(lane, 0, 10_000)
        self._announce(WORKERS)

    def _fire(self) -> None:
        if self.world.timers:
            timer = self.world.timers[-1 - self.random.randrange(min(5, len(self.world.timers)))]
            due = wire.JobDue(job_id=timer.job_id, version=timer.version)
            self.world.report(lane_of_job(timer.job_id), due)

    def _wait(self) -> None:
        self.world.now_ms += self.random.choice((1, 10, 100, 500, 1_000, 3_000))
        self._announce(WORKERS)

    def _told(self, worker: str, lane: int) -> list[str]:
        """The queues of other lanes that a worker serves there, since it was told to a short while ago."""
        over_ms = self.world.now_ms - 1_000 * SERVED_S
        return sorted(
            one[1] for one, at in self.world.serves.items() if (one[0], one[2]) == (worker, lane) and at > over_ms
        )

    def _announce(self, workers: Any) -> None:
        for worker in workers:
            for lane in range(LANES):
                self.world.report(
                    lane,
                    wire.WorkerAnnounced(
                        worker=worker,
                        partition=0,
                        queues=(*QUEUES[lane], *self._told(worker, lane)),
                        all_queues=tuple(QUEUES[lane]),
                        slots=SLOTS,
                        all_slots=SLOTS,
                        tasks=("t",),
                        started_at=STARTED_AT,
                        home=lane == 0,
                    ),
                )


def states(world: World) -> dict[State, int]:
    """How many jobs are in each state, by the log."""
    found: dict[State, int] = {}
    for job in world.folds.values():
        found[job.state] = found.get(job.state, 0) + 1
    return found
