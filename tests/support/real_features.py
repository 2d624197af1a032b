"""What producers write of batches, limits, unique keys, deadlines, queues and workers, for records to mutate."""

from datetime import timedelta
from random import Random
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.controls import BulkAction
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.relations import LimitKind, LimitScope, Need, ParentKind, UniquePolicy, UniqueUntil
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.timestamps import EPOCH

LIMITS: Final = (
    wire.Limit(LimitKind.MUTEX, "m"),
    wire.Limit(LimitKind.SEMAPHORE, "größe", 2),
    wire.Limit(LimitKind.SLIDING_WINDOW, "w", 3, 2.0, "tenant"),
    wire.Limit(LimitKind.FIXED_WINDOW, "f", 300, 60.0),
    wire.Limit(LimitKind.TOKEN_BUCKET, "t", 3, 0.5),
)
UNIQUE: Final = (
    wire.Unique("u"),
    wire.Unique("u", UniquePolicy.EXISTING),
    wire.Unique("v", UniquePolicy.REPLACE, UniqueUntil.START),
    wire.Unique("w", UniquePolicy.REJECT, UniqueUntil.PERIOD, 60.0),
    wire.Unique("x", UniquePolicy.DEBOUNCE, wait_s=5.0),
)
PROGRESS: Final = ("", "half of größe", "x" * 2_000)


class Features:
    """The batches and operations that were begun, in so many lanes; `queues` are one of each lane."""

    def __init__(self, random: Random, queues: list[str]) -> None:
        self.random, self.queues = random, queues
        self.batches: list[str] = []
        self.operations: list[str] = []

    def of_a_job(self, jobs: list[str], now_ms: int) -> dict[str, Any]:
        """The fields of a job that uses some feature."""
        random, fields = self.random, dict[str, Any]()
        if random.random() < 0.4:
            fields["limits"] = tuple(random.sample(LIMITS, random.randint(1, 3)))
        if random.random() < 0.3:
            fields["unique"] = random.choice(UNIQUE)
        if random.random() < 0.3 and self.batches:
            fields["batch"] = random.choice(self.batches[-5:])
        if random.random() < 0.2:
            fields["deadline"] = EPOCH + timedelta(milliseconds=now_ms + random.choice((-1_000, 1_000, 100_000)))
        if random.random() < 0.2:
            fields["expires_in_s"] = random.choice((0.5, 60.0))
        if random.random() < 0.2 and len(jobs) > 2:
            parents = tuple(random.sample(jobs[-20:], min(len(jobs), 3)))
            fields["parents"] = wire.Parents(parents, random.choice(list(ContinueOn)), random.choice(list(Need)))
        elif random.random() < 0.2 and self.batches:
            fields["parent"] = wire.Parent(random.choice(self.batches), ContinueOn.ENDED, ParentKind.BATCH)
        return fields

    def command(self, now_ms: int, worker: str) -> wire.Command:
        """A command that names no job."""
        random, queue = self.random, self.random.choice(self.queues)
        by = {"by": "ann", "reason": "größe"} if random.random() < 0.5 else {}
        until = EPOCH + timedelta(milliseconds=now_ms + random.choice((-1_000, 5_000, 10**9)))
        made: list[wire.Command] = [
            *self._of_batches(),
            wire.PauseQueue(queue=queue, until=random.choice((None, until)), **by),
            wire.DrainQueue(queue=queue, until=until, **by),
            wire.ResumeQueue(queue=queue, **by),
            wire.ResumeQueue(queue=queue),
            wire.QuietWorker(worker=random.choice((worker, "nobody@host:1:ab@0")), **by),
            wire.ResumeWorker(worker=random.choice((worker, "nobody@host:1:ab@0")), **by),
            wire.StopWorker(worker="nobody@host:1:ab@0"),
            wire.SetLimit(kind=LimitKind.MUTEX, key="m", **by),
            wire.SetLimit(kind=LimitKind.SLIDING_WINDOW, key="w", capacity=random.randint(1, 9), interval_s=1.0),
            self._of_queue_limits(),
            *self._of_bulk(),
        ]
        return random.choice(made)

    def report(self, job_id: str, other: str, lane: int) -> wire.AnyReport:
        """What one lane tells another, right or wrong."""
        random = self.random
        limit, state = random.choice(LIMITS), random.choice((None, *State))
        here: dict[str, Any] = {"job_id": job_id, "kind": limit.kind, "key": limit.key}
        asked: dict[str, Any] = {"epoch": random.randint(0, 2), "ask": random.randint(0, 5)}
        batch = random.choice(self.batches) if self.batches else job_id
        counts = {name: random.randint(0, 3) for name in ("created", "succeeded", "failed", "deleted", "marks")}
        made: list[wire.AnyReport] = [
            wire.LimitAsked(job_id=job_id, limit=limit, priority=0, created_ms=0, **asked),
            wire.LimitStarted(job_id=job_id, limit=limit, at_ms=0),
            wire.LimitReleased(**here),
            wire.LimitGranted(**here, **asked, from_ms=0),
            wire.LimitWaits(**here, **asked, waits_for="mutex m"),
            wire.LimitsForgotten(lane=lane),
            wire.LimitsRebuilt(lane=lane, rebuild=random.randint(0, 3)),
            *self._of_shares(lane),
            wire.BatchAwaited(job_id=batch, child=other, on=ContinueOn.ENDED),
            wire.BatchCounted(job_id=batch, lane=lane, number=random.randint(1, 9), **counts),
            wire.BatchTold(job_id=batch, what=random.choice(("started", "cancelled", "forgotten"))),
            wire.ContinuationUnmet(job_id=job_id, child=other),
            wire.QueueElsewhere(queue=random.choice(self.queues), lane=lane),
            wire.ParentFound(job_id=job_id, question=f"reports/{lane}@{random.randint(0, 300)}", state=state),
            wire.ParentRequeued(job_id=other, parent=job_id),
            wire.ParentEnded(job_id=other, parent=batch, state=State.DELETED, run=False, reason="cancelled"),
        ]
        return random.choice(made)

    def progressed(self, said: dict[str, Any]) -> wire.RunProgressed:
        """What a run says of itself."""
        text = self.random.choice(PROGRESS)
        return wire.RunProgressed(**said, progress=self.random.random(), text=text, lines=(text, "a line"))

    def _id(self) -> str:
        return new_job_id(self.random.randrange(len(self.queues)), 1_800_000_000_000, self.random.getrandbits(62))

    def _of_batches(self) -> list[wire.Command]:
        if self.random.random() < 0.2 or not self.batches:
            self.batches.append(self._id())
            outer = self.batches[-2] if len(self.batches) > 1 and self.random.random() < 0.3 else None
            return [
                wire.CreateBatch(batch_id=self.batches[-1], description="größe", lanes=(0, 1), jobs=3, batch=outer)
            ]
        batch = self.random.choice(self.batches[-5:])
        return [
            wire.AttachToBatch(batch_id=batch, addition=self._id(), lanes=(0,), jobs=1),
            wire.MarkBatch(batch_id=batch, mark_id=self._id()),
            wire.CancelBatch(batch_id=batch, running=self.random.random() < 0.5, reason="enough"),
        ]

    def _of_queue_limits(self) -> wire.Command:
        kind, capacity = self.random.choice(
            ((LimitKind.SEMAPHORE, 2), (LimitKind.SEMAPHORE, None), (LimitKind.TOKEN_BUCKET, 3))
        )
        interval_s = 0.5 if kind is LimitKind.TOKEN_BUCKET else None
        said = {"kind": kind, "key": self.random.choice(self.queues), "capacity": capacity, "interval_s": interval_s}
        return wire.SetLimit(scope=LimitScope.QUEUE, **said)

    def _of_shares(self, lane: int) -> list[wire.AnyReport]:
        random = self.random
        here: dict[str, Any] = {"queue": random.choice(self.queues), "number": random.randint(0, 2)}
        return [
            wire.QueueLimitTold(**here, kind=LimitKind.SEMAPHORE, capacity=random.choice((None, 2)), reason="größe"),
            wire.QueueLimitJoined(**here, lane=lane, running=random.randint(0, 2)),
            wire.QueueLimitUsed(**here, lane=lane, returned=1, used=(5,), at_ms=7, unused=(6,), more=3),
            wire.QueueLimitGiven(**here, times=(0, 1), others_wait=random.random() < 0.5),
        ]

    def _of_bulk(self) -> list[wire.Command]:
        if self.random.random() < 0.3 or not self.operations:
            self.operations.append(self._id())
            more = {"filter": {"state": ["Failed"]}, "fence": (5, 7), "matched": 9, "rate": 10.0, "by": "ann"}
            return [wire.StartBulk(operation=self.operations[-1], action=BulkAction.REQUEUE, **more)]
        operation = self.random.choice(self.operations)
        return [
            wire.AdvanceBulk(operation=operation, before=0, sent=self.random.randint(0, 9), cursor=self._id()),
            wire.CancelBulk(operation=operation),
        ]
