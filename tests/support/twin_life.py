"""A random life of jobs that use everything but limits by key, whose jobs ask anew after a take-over."""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job, lane_of_queue
from joblog.streams.contract.relations import LimitKind, LimitScope, Need, ParentKind, UniquePolicy, UniqueUntil
from joblog.streams.contract.retry import Curve, Retry
from joblog.streams.contract.states import FINAL_STATES, ContinueOn
from joblog.streams.contract.timestamps import EPOCH
from msgspec import Raw, json

from tests.support.lane_world import LANES, QUEUES, WIDE, done
from tests.support.scene import BOOM, STARTED_AT
from tests.support.twin_worlds import Twins

#: Jobs that were created so long ago are left alone.
RECENT: Final = 20
#: More than ever wait to be read.
ALL: Final = 1_000
_CHANGES: Final = (
    wire.DeleteJob,
    wire.RequeueJob,
    wire.RequeueJob,
    wire.SetParameter,
    wire.SetPriority,
    wire.MoveJob,
    wire.RescheduleJob,
)
_QUEUE_LIMITS: Final = (LimitKind.SEMAPHORE, LimitKind.SLIDING_WINDOW, LimitKind.FIXED_WINDOW, LimitKind.TOKEN_BUCKET)


class TwinLife:
    """Steps at random; the same seed gives the same life."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = Twins(self.random)
        self._batches: list[str] = []
        self._runs_told = 0
        self._running: list[tuple[str, wire.RunJob]] = []
        self._steps: dict[Callable[[], None], float] = {
            self._turn: 30,
            self._lose_a_turn: 2,
            self._create: 10,
            self._create_batch: 1,
            self._change_batch: 0.5,
            self._run_ends: 14,
            self._change: 5,
            self._wait: 8,
            self._fire: 4,
            self._control: 1,
            self._limit_queue: 0.5,
        }
        self._announce()

    def step(self) -> None:
        self.random.choices([*self._steps], [*self._steps.values()])[0]()

    def read_all(self) -> None:
        for _ in range(3):
            for lane in range(LANES):
                self.world.turn(lane, ALL, ALL)

    # --- electors, and time ---

    def _turn(self) -> None:
        self.world.turn(self._lane(), self.random.choice((0, 1, 3, 50)), ALL)

    def _lose_a_turn(self) -> None:
        self.world.turn(self._lane(), 5, ALL, commits=False)

    def _wait(self) -> None:
        self.world.now_ms += self.random.choice((1, 10, 100, 500, 1_000, 3_000))
        self._announce()

    def _fire(self) -> None:
        if self.world.timers:
            timer = self.random.choice(self.world.timers[-5:])
            due = wire.JobDue(job_id=timer.job_id, version=timer.version)
            self.world.report(lane_of_job(timer.job_id), due)

    # --- what clients ask ---

    def _create(self) -> None:
        random, lane = self.random, self._lane()
        queue = random.choice((QUEUES[lane][0], QUEUES[lane][0], QUEUES[lane][0], WIDE))
        fields = {"queue": queue, "job_id": self.world.an_id(lane), **self._features()}
        if queue == WIDE:
            fields.pop("unique", None)  # another lane may decide about its key
        known, kind = self._recent(), random.random()
        if known and kind < 0.3:
            fields["parent"] = wire.Parent(random.choice(known), self._on())
        elif len(known) > 1 and kind < 0.4:
            fields["parents"] = wire.Parents(tuple(random.sample(known, 2)), self._on(), random.choice(tuple(Need)))
        elif self._batches and kind < 0.5:
            fields["parent"] = wire.Parent(random.choice(self._batches), self._on(), ParentKind.BATCH)
        elif kind < 0.6:
            fields["run_at"] = self._in(100, 2_000, 8_000)
        self.world.send(wire.CreateJob("t", **fields), lane)

    def _features(self) -> dict[str, Any]:
        random = self.random
        retry = Retry(attempts=1, curve=Curve.FIXED, delays_s=(random.choice((0.0, 1.0)),))
        fields: dict[str, Any] = {"priority": random.choice((0, 0, 1)), "retry": retry}
        if random.random() < 0.3:
            policy, until = random.choice(tuple(UniquePolicy)), random.choice(tuple(UniqueUntil))
            period_s = random.choice((1.0, 30.0)) if until is UniqueUntil.PERIOD else None
            wait_s = random.choice((0.5, 5.0)) if policy is UniquePolicy.DEBOUNCE else None
            fields["unique"] = wire.Unique(random.choice("ab"), policy, until, period_s, wait_s)
        if random.random() < 0.2:
            fields["expires_in_s"] = random.choice((0.5, 3.0, 20.0))
        if random.random() < 0.2:
            fields["deadline"] = self._in(500, 3_000, 20_000)
        return fields

    def _create_batch(self) -> None:
        """Some wait, for a job or a batch, are within others, are empty, or are never complete."""
        random, said, kind = self.random, dict[str, Any](), self.random.random()
        if self._batches and random.random() < 0.3:
            said["batch"] = random.choice(self._batches)
        if kind < 0.25 and self.world.folds:
            said["parent"] = wire.Parent(random.choice(self._recent()), self._on())
        elif kind < 0.4 and self._batches:
            said["parent"] = wire.Parent(random.choice(self._batches), self._on(), ParentKind.BATCH)
        first, *rest = self.world.create(
            [self._lane() for _ in range(random.choice((0, 1, 4)))], self._lane(), **said
        )
        assert isinstance(first, wire.CreateBatch)
        self._batches.append(first.batch_id)
        self.world.unsteady.add(first.batch_id)
        self.world.send_all([first, *(rest[:-1] if random.random() < 0.1 else rest)])

    def _change_batch(self) -> None:
        if self._batches:
            batch = self.random.choice(self._batches)
            cancel = wire.CancelBatch(batch_id=batch, running=self.random.random() < 0.5)
            attach = self.world.attach(batch, [self._lane(), self._lane()])
            self.world.send_all(self.random.choice(([cancel], attach)))

    def _change(self) -> None:
        if not self.world.folds:
            return
        random, job = self.random, self.world.folds[self.random.choice(self._recent())]
        kind, fields = random.choice(_CHANGES), dict[str, Any]()
        if kind is wire.SetParameter:
            fields = {"name": "p", "value": Raw(b"1")}
        elif kind is wire.SetPriority:
            fields = {"priority": random.choice((0, 3))}
        elif kind is wire.MoveJob:
            fields = {"queue": QUEUES[self._lane()][0]}
        elif kind is wire.RescheduleJob:
            fields = {"run_at": self._in(0, 2_000)}
        if kind in {wire.RequeueJob, wire.RescheduleJob} and job.state in FINAL_STATES:
            created_at = EPOCH + timedelta(milliseconds=job.created_ms)
            spec, parameters = (
                json.decode(job.spec, type=wire.JobSpec),
                json.decode(job.parameters, type=dict[str, Raw]),
            )
            fields["snapshot"] = wire.Snapshot(
                job.version, job.state, job.attempt, job.task, job.queue, created_at, spec, parameters
            )
        self.world.send(kind(job_id=job.id, **fields), lane_of_job(job.id))

    def _control(self) -> None:
        lane, until = self._lane(), self.random.choice((None, self._in(200), self._in(3_000)))
        queue = self.random.choice((QUEUES[lane][0], WIDE))
        commands = (
            wire.PauseQueue(queue=queue, until=until),
            wire.DrainQueue(queue=queue, until=until),
            wire.ResumeQueue(queue=queue),
        )
        self.world.send(self.random.choice(commands), lane)

    def _limit_queue(self) -> None:
        queue, kind = self.random.choice((QUEUES[self._lane()][0], WIDE)), self.random.choice(_QUEUE_LIMITS)
        capacity, interval_s = self.random.choice((None, 1, 3)), None if kind is LimitKind.SEMAPHORE else 2.0
        said = wire.SetLimit(
            kind=kind, key=queue, capacity=capacity, scope=LimitScope.QUEUE,
            interval_s=None if capacity is None else interval_s,
        )  # fmt: skip
        self.world.send(said, lane_of_queue(queue, LANES))

    # --- workers ---

    def _run_ends(self) -> None:
        self._running += self.world.runs[self._runs_told :]
        self._runs_told = len(self.world.runs)
        if not self._running:
            return
        worker, run = self._running.pop(self.random.randrange(len(self._running)))
        said = {"job_id": run.job_id, "lease": run.lease, "worker": worker}
        how, report = self.random.random(), done(run.job_id, run.lease, worker)
        if how < 0.25:
            report = wire.RunFailed(**said, exception=BOOM, duration_ms=1.0, started_ms=0)
        elif how < 0.35:
            report = wire.RunReleased(**said, reason="drained")
        for _ in range(self.random.choice((1, 1, 1, 2))):
            self.world.report(lane_of_job(run.job_id), report)

    def _announce(self) -> None:
        """One worker with room for all: which of several gets a job is not the same after a take-over."""
        for lane in range(LANES):
            queues = (QUEUES[lane][0], WIDE)
            said = wire.WorkerAnnounced(
                worker="w", partition=0, queues=queues, all_queues=queues, slots=1_000, all_slots=1_000, tasks=("t",),
                started_at=STARTED_AT,
            )  # fmt: skip
            self.world.report(lane, said)

    # --- chance ---

    def _lane(self) -> int:
        return self.random.randrange(LANES)

    def _on(self) -> ContinueOn:
        return self.random.choice(tuple(ContinueOn))

    def _in(self, *ms: int) -> datetime:
        return EPOCH + timedelta(milliseconds=self.world.now_ms + self.random.choice(ms))

    def _recent(self) -> list[str]:
        return sorted(self.world.folds)[-RECENT:]
