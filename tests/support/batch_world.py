"""Batches in a world of lanes: what clients send of them, and what must be true of their numbers at any time."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.ids import lane_of_job, new_job_id
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.states import DELETED, FAILED, FINAL_STATES, SUCCEEDED, State
from joblog.streams.contract.timestamps import format_time
from joblog.streams.elector.lane_records import write_state
from joblog.streams.lane.event_fold import EventFold
from joblog.streams.lane.features.batch_owner import BatchOwner
from joblog.streams.lane.features.batch_parts import BatchParts
from joblog.streams.lane.features.batch_records import Batch
from joblog.streams.lane.features.batches import Batches
from joblog.streams.lane.lane import Lane
from joblog.streams.replay.redecision import Difference, differences
from joblog.streams.replay.stored import stored_event

from tests.support.lane_world import LANES, QUEUES, World, chain, done
from tests.support.scene import NOW, STARTED_AT


class BatchWorld(World):
    """`told` are the events of each batch as a reader of the log has them, `members` what clients added to each."""

    worker: ClassVar = "w"

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, list[tuple[str, wire.BatchEvent]]] = defaultdict(list)
        self.members: dict[str, list[str]] = defaultdict(list)
        self.started_from_waiting: Counter[str] = Counter()
        #: Batches that may go on after they had ended: more was added, or an end was taken back.
        self.unsteady: set[str] = set()
        self.at_ms: dict[tuple[str, int], int] = {}
        self.causes: dict[tuple[str, int], str | None] = {}
        self.rejections: list[tuple[str, str | None]] = []
        #: Given what each turn counts.
        self.on_counts: Callable[[Counter[tuple[str, ...]]], None] = lambda _: None
        self._made = 0

    # --- what clients send ---

    def an_id(self, lane: int) -> str:
        self._made += 1
        return new_job_id(lane, NOW, self._made)

    def create(self, jobs: Sequence[int], lane: int = 0, **said: Any) -> list[wire.Command]:
        """A batch with a job in each of these lanes: its commands, in the order in which a client writes them."""
        batch_id = said.pop("batch_id", None) or self.an_id(lane)
        made = self._jobs(batch_id, jobs, is_waiting=said.pop("is_waiting", "parent" in said))
        inner = [one.batch_id for one in said.pop("inner", ())]
        lanes = tuple(sorted({*jobs, *map(lane_of_job, inner)}))
        first = wire.CreateBatch(batch_id=batch_id, lanes=lanes, jobs=len(jobs) + len(inner), **said)
        self.members[batch_id] += [one.job_id for one in made if isinstance(one, wire.CreateJob)] + inner
        return [first, *made, *self._marks(batch_id, lanes)]

    def attach(self, batch_id: str, jobs: Sequence[int]) -> list[wire.Command]:
        self.unsteady.add(batch_id)
        lanes = tuple(sorted(set(jobs)))
        first = wire.AttachToBatch(batch_id=batch_id, addition=self.an_id(0), lanes=lanes, jobs=len(jobs))
        made = self._jobs(batch_id, jobs, is_waiting=True)
        self.members[batch_id] += [one.job_id for one in made]
        return [first, *made, *self._marks(batch_id, lanes)]

    def waiter(self, batch_id: str, lane: int, **said: Any) -> wire.CreateJob:
        parent = wire.Parent(batch_id, kind=ParentKind.BATCH, **said)
        return wire.CreateJob("t", queue=QUEUES[lane][0], job_id=self.an_id(lane), parent=parent)

    def _jobs(self, batch_id: str, lanes: Sequence[int], *, is_waiting: bool) -> list[wire.CreateJob]:
        parent = wire.Parent(batch_id, kind=ParentKind.BATCH) if is_waiting else None
        return [
            wire.CreateJob("t", queue=QUEUES[lane][0], job_id=self.an_id(lane), batch=batch_id, parent=parent)
            for lane in lanes
        ]

    def _marks(self, batch_id: str, lanes: Sequence[int]) -> list[wire.Command]:
        return [wire.MarkBatch(batch_id=batch_id, mark_id=self.an_id(lane)) for lane in lanes]

    def send_all(self, commands: Sequence[wire.Command]) -> None:
        """One transaction."""
        for command in commands:
            assert command.job_id is not None
            self.send(command, lane_of_job(command.job_id))

    def announce(self, slots: int = 2) -> None:
        for lane in range(LANES):
            said = wire.WorkerAnnounced(
                worker=self.worker, partition=0, queues=(QUEUES[lane][0],), all_queues=(QUEUES[lane][0],),
                slots=slots, all_slots=slots, tasks=("t",), started_at=STARTED_AT,
            )  # fmt: skip
            self.report(lane, said)

    # --- what readers of the log see ---

    def _commit(self, number: int, out: Any) -> None:
        before = {key: self.folds[key].state for key, *_ in out.events if key in self.folds}
        super()._commit(number, out)
        self.on_counts(out.counts)
        for key, kind, _, data, cause, _ in out.events:
            if isinstance(data, wire.CommandRejected):
                self.rejections.append((data.code, data.job_id))
            if isinstance(data, wire.BatchEvent | wire.JobEvent):
                self.at_ms[key, data.version] = self.now_ms
                self.causes[key, data.version] = cause
            if isinstance(data, wire.BatchEvent):
                events = self.told[key]
                assert data.version == len(events) + 1, (key, kind, data.version, len(events))
                events.append((kind, data))
                self._check_sum(data)
                if data.state in FINAL_STATES and key not in self.unsteady:
                    assert {self.state(one) for one in self.members[key]} <= FINAL_STATES, (key, kind, data)
            elif isinstance(data, wire.JobEvent):
                if before.get(key) is State.AWAITING and data.state in {State.ENQUEUED, State.SCHEDULED}:
                    self.started_from_waiting[key] += 1
                before[key] = data.state

    def state(self, member: str) -> State | None:
        """Where a job or an inner batch is, as the log tells."""
        fold = self.folds.get(member)
        if fold is not None:
            return fold.state
        told = self.told.get(member)
        return told[-1][1].state if told else None

    def _check_sum(self, data: wire.BatchEvent) -> None:
        ends = data.succeeded + data.failed + data.deleted
        assert ends <= data.created
        if data.state in FINAL_STATES:
            assert ends == data.created

    def rebuild(self, number: int) -> None:
        """The `state` of a lane is lost, and made anew from the events of all lanes."""
        fold = EventFold(number, 10_000, LANES)
        for partition in self.partitions:
            for key, kind, event, _ in partition.events:
                if kind.startswith("job."):
                    fold.apply(key, event, self.at_ms[key, event.version], None)
        for batch_id, events in self.told.items():
            for _, event in events:
                fold.batches.batch(batch_id, event, self.at_ms[batch_id, event.version])
        state = {key: write_state(value) for key, value in fold.state(self.now_ms).items()}
        self.partitions[number].state = {key: value for key, value in state.items() if value is not None}
        self.take_over(number)

    # --- what must be true ---

    def parts(self, lane: Lane) -> BatchParts:
        return next(one.parts for one in lane.features if isinstance(one, Batches))

    def owner(self, lane: Lane) -> BatchOwner:
        return next(one.owner for one in lane.features if isinstance(one, Batches))

    def batch(self, batch_id: str) -> Batch | None:
        return self.owner(self.lanes[lane_of_job(batch_id)]).batches.get(batch_id)

    def check(self) -> None:
        super().check()
        counts: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
        for fold in self.folds.values():
            if fold.extras is not None and fold.extras.batch is not None:
                self._count(counts, lane_of_job(fold.id), fold.extras.batch, fold.state)
        for lane in self.lanes:
            for batch_id, batch in self.owner(lane).batches.items():
                if batch.outer is not None:
                    self._count(counts, lane_of_job(batch_id), batch.outer, batch.state)
        for (number, batch_id), expected in counts.items():
            part = self.parts(self.lanes[number]).parts.get(batch_id)
            if part is not None:  # else the batch is forgotten
                names = ("created", SUCCEEDED, FAILED, DELETED)
                assert part.counts[:4] == tuple(expected[name] for name in names), (batch_id, part, expected)

    def _count(self, counts: Any, lane: int, batch_id: str, state: State) -> None:
        counts[lane, batch_id].update(["created"] + ([state] if state in FINAL_STATES else []))

    def decided_otherwise(self) -> list[Difference]:
        """The events of jobs that come out otherwise when they are decided anew from the log."""
        found: list[Difference] = []
        for partition in self.partitions:
            stored = []
            for key, kind, event, cause in partition.events:
                if kind.startswith("job."):
                    time = format_time(self.at_ms[key, event.version])
                    said = wire.CloudEvent("1.0", "e", "/l", kind, key, time, None, cause, None, event)
                    stored.append(stored_event(encode(said)))
            found += differences((one for one in stored if one is not None), chain())
        return found

    # --- the end ---

    def report_successes(self, number: int) -> None:
        """What runs in a lane succeeds."""
        for job in list(self.lanes[number].jobs.values()):
            if job.worker is not None:
                self.report(number, done(job.id, job.lease, job.worker))

    def until_quiet(self, ms: int = 500) -> None:
        """Everything is read, and what runs succeeds, until nothing is said any more."""
        quiet = 0
        for _ in range(300):
            self.announce(100)
            for number in range(LANES):
                self.report_successes(number)
            said = sum(len(one.events) for one in self.partitions) + sum(map(len, self.told.values()))
            for number in range(LANES):
                self.turn(number, 1000, 1000)
            for number in range(LANES):
                self.turn(number, 1000, 1000)
            self.check()
            self.now_ms += ms
            now = sum(len(one.events) for one in self.partitions) + sum(map(len, self.told.values()))
            quiet = quiet + 1 if now == said else 0
            if quiet > 4 and all(one.is_read for one in self.partitions):
                return
        raise AssertionError("it never becomes quiet")
