"""Several lanes around a broker in memory, and what must be true of them after every turn."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, ClassVar

from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode, read_command, read_report
from joblog.streams.contract.commands import JobSpec
from joblog.streams.contract.events import Event
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import UniquePolicy, UniqueUntil
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.elector.lane_records import read_state, write_state
from joblog.streams.lane.features.catalog import FEATURES
from joblog.streams.lane.features.failed_jobs import FailedJobs
from joblog.streams.lane.features.unique_keys import UNIQUE_KEY, UniqueKeys, place_of
from joblog.streams.lane.features.workers import SUSPECT_LOSSES, WORKER_KEY
from joblog.streams.lane.filters import FilterChain, RetryFilter
from joblog.streams.lane.job import Job, deleted, evolve, is_transition, new_job
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.parents import condition, ends, parents_of, several
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.times import over_at
from joblog.streams.lane.transitions import Election
from msgspec import Raw, json, structs
from pydantic import TypeAdapter

from tests.support.scene import NOW, queue_in

LANES = 3
SHARDED = "sharded"
#: A queue in all lanes.
WIDE = "wide"
DAY_MS = 86_400_000
RULES = LaneRules(failed_kept=3, failed_ms=DAY_MS, remembered=10_000, shards={SHARDED: 2, WIDE: LANES})
QUEUES = {lane: [queue_in(lane, LANES)] for lane in range(LANES)}
#: Priorities that the custom filter acts upon.
UNWANTED, UNLUCKY, UNBORN = 7, 6, 4

_event_model = TypeAdapter[Event](Event)
_spec = json.Decoder(wire.JobSpec).decode


class Whims:
    """A custom filter: some jobs may not start, some not even come to be, and for some it raises."""

    name, order = "whims", 50
    states = frozenset({State.AWAITING, State.ENQUEUED, State.PROCESSING, State.SCHEDULED})

    def elect(self, job: Job, candidate: wire.JobEvent, *_: Any) -> wire.JobEvent | None:
        if job.priority == UNLUCKY:
            raise RuntimeError("no luck")
        if job.priority == UNBORN and job.version == 0:
            return deleted(job, "not even created")
        return deleted(job, "unwanted") if job.priority == UNWANTED and candidate.state is State.PROCESSING else None


@cache
def chain() -> FilterChain:
    return FilterChain((RetryFilter(lambda: 0.0), Whims()))


@dataclass
class Partition:
    """One lane's share of every topic, committed records only, and how far its elector has read."""

    commands: list[bytes] = field(default_factory=list)
    reports: list[tuple[bytes, int]] = field(default_factory=list)
    events: list[tuple[str, str, wire.JobEvent, str | None]] = field(default_factory=list)
    state: dict[str, bytes] = field(default_factory=dict)
    read_commands: int = 0
    read_reports: int = 0

    @property
    def is_read(self) -> bool:
        return self.read_commands == len(self.commands) and self.read_reports == len(self.reports)


class World:
    """The broker, the lanes, the clock; `folds` are the jobs as whoever reads the events knows them."""

    rules: ClassVar = RULES

    def __init__(self) -> None:
        self.now_ms = NOW
        self.partitions = [Partition() for _ in range(LANES)]
        self.lanes = [Lane(number, LANES, self.rules) for number in range(LANES)]
        self.folds: dict[str, Job] = {}
        self.timers: list[wire.Timer] = []
        self.runs: list[tuple[str, wire.RunJob]] = []
        #: Of each job that ran, the newest lease; of each unique key, the live jobs that have it.
        self.leases: dict[str, int] = {}
        self.keyed: dict[str, dict[str, Job]] = defaultdict(dict)
        #: Worker, queue and lane -> when it was told last to serve the queue there.
        self.serves: dict[tuple[str, str, int], int] = {}
        self.kinds: dict[str, str] = {}
        self._sent = 0

    # --- what others write ---

    def send(self, command: wire.Command, lane: int) -> None:
        """Anyone writes a command, into whichever partition."""
        self._sent += 1
        command_id = f"c-{self._sent}"
        self.kinds[command_id] = command.type
        said = wire.CloudEvent("1.0", command_id, "/test", command.type, data=command)
        self.partitions[lane].commands.append(encode(said))

    def report(self, lane: int, report: wire.AnyReport) -> None:
        self.partitions[lane].reports.append((encode(report), self.now_ms))

    # --- turns ---

    def turn(self, number: int, commands: int, reports: int, *, commits: bool = True) -> None:
        """The lane reads so many records at most, and its transaction commits or is lost."""
        partition, lane, out = self.partitions[number], self.lanes[number], LaneOutput()
        forwards: list[tuple[int, bytes]] = []
        upto_commands = min(partition.read_commands + commands, len(partition.commands))
        for offset in range(partition.read_commands, upto_commands):
            self._command(lane, partition.commands[offset], offset, forwards, out)
        upto_reports = min(partition.read_reports + reports, len(partition.reports))
        for offset in range(partition.read_reports, upto_reports):
            value, appended_ms = partition.reports[offset]
            lane.heard(appended_ms)
            lane.report(read_report(value), f"reports/{number}@{offset}", self._election(), out)
        caught_up = upto_commands == len(partition.commands) and upto_reports == len(partition.reports)
        lane.tick(caught_up, self._election(), out)
        lane.assign(self._election(), out)
        self._check_assignments(lane, out)
        if not commits:
            self.take_over(number)
            return
        partition.read_commands, partition.read_reports = upto_commands, upto_reports
        for target, value in forwards:
            self.partitions[target].commands.append(value)
        self._commit(number, out)

    def lose_reports(self, number: int) -> None:
        """What the lane has not read yet of its reports is gone, and it goes on without."""
        partition = self.partitions[number]
        partition.read_reports = len(partition.reports)
        self.take_over(number, reports_lost=True)

    def take_over(self, number: int, *, reports_lost: bool = False) -> None:
        """Another elector has the lane, and of it what was committed."""
        partition = self.partitions[number]
        lane = self.lanes[number] = Lane(number, LANES, self.rules)
        for key, value in partition.state.items():
            lane.load(key, read_state(key, value), self.now_ms)
        if reports_lost:
            lane.reports_lost()
        lane.loaded(self.now_ms)

    def _command(
        self, lane: Lane, value: bytes, offset: int, forwards: list[tuple[int, bytes]], out: LaneOutput
    ) -> None:
        received = read_command(value, None)
        target = lane.lane_of(received.command)
        if target == lane.number:
            lane.command(received, offset, self._election(), out)
        else:
            forwards.append((target, value))

    def _election(self) -> Election:
        return Election(self.now_ms, self.now_ms, chain().elect, chain().watched)

    def _commit(self, number: int, out: LaneOutput) -> None:
        partition = self.partitions[number]
        for key, kind, event_id, data, cause, _ in out.events:
            _event_model.validate_python({**json.decode(encode(data)), "type": kind}, extra="forbid")
            if isinstance(data, wire.JobEvent):
                assert event_id == f"{key}/{data.version}"
                happened = reread(data)
                self._fold(key, happened, cause)
                partition.events.append((key, kind, happened, cause))
        for _, worker, said in out.assignments:
            if isinstance(said, wire.ServeQueue):
                self.serves[worker, said.queue, said.lane] = self.now_ms
            if isinstance(said, wire.RunJob):
                self.runs.append((worker, json.decode(encode(said), type=wire.RunJob)))
                self.leases[said.job_id] = max(said.lease, self.leases.get(said.job_id, -1))
        self.timers += out.timers
        for lane, _, report in out.reports:
            self.report(lane, report)
        for key, value in out.state.items():
            record = write_state(value)
            if record is None:
                partition.state.pop(key, None)
            else:
                partition.state[key] = record

    # --- what must be true ---

    def _fold(self, key: str, event: wire.JobEvent, cause: str | None) -> None:
        """Let a reader of the log take the event: no gap, no repetition, and no end is left without a reason."""
        before = self.folds.get(key)
        if before is None:
            assert event.version == 1
            assert event.spec is not None
            created = _spec(event.spec)
            spec = bytes(event.spec)
            self.folds[key] = new_job(key, event, spec, created.priority, self.now_ms, created)
            self._check_unique(self.folds[key])
            return
        assert event.version == before.version + 1
        if before.state in FINAL_STATES and event.state is not before.state and not self._is_traversed(before):
            allowed = {"job.requeue", "job.reschedule"} | ({"job.delete"} if before.state is State.FAILED else set())
            waits_again = before.state is State.DELETED and event.state is State.AWAITING
            assert waits_again or self.kinds[str(cause)] in allowed
        self._check_cause(before, event, str(cause))
        if event.state is State.PROCESSING and is_transition(event):
            assert not 0 < over_at(before) <= self.now_ms
        after = self.folds[key] = evolve(before, event, self.now_ms)
        self._check_unique(after)
        assert (after.state, after.attempt) == (event.state, event.attempt)
        if event.state in {State.ENQUEUED, State.SCHEDULED} and is_transition(event):
            assert after.retries == event.retry

    def _check_cause(self, before: Job, event: wire.JobEvent, cause: str) -> None:
        """A report moves a job on only if it speaks of where the job was."""
        if not cause.startswith("reports/") or before.state is State.FAILED:  # the second event of a retry
            return
        number, _, offset = cause.removeprefix("reports/").partition("@")
        report = read_report(self.partitions[int(number)].reports[int(offset)][0])
        if isinstance(report, wire.RunReport):
            assert (report.worker, report.lease) == (before.worker, before.lease)
        elif isinstance(report, wire.JobDue):
            assert (before.state, report.version) == (State.SCHEDULED, before.version)
        elif isinstance(report, wire.ParentEnded):
            assert before.state is State.AWAITING
            self._check_parents(before, event, report)
        elif isinstance(report, wire.ParentRequeued):
            assert before.state in {State.DELETED, State.AWAITING}
            assert report.parent in parents_of(before)

    def _check_parents(self, before: Job, event: wire.JobEvent, report: wire.ParentEnded) -> None:
        """A job goes on when its parent ended, or as many of its parents as it needs."""
        parents = several(before)
        if parents is None:
            assert report.parent == before.parent
            assert report.run or event.state is State.DELETED
            return
        assert report.parent in parents.job_ids
        if is_transition(event):
            assert report.parent in ends(before)
            found = condition(parents, ends(before))
            assert found != "wait"
            assert (event.state is State.DELETED) is (found == "delete")
        else:
            assert report.parent not in ends(before)

    def _is_traversed(self, job: Job) -> bool:
        events = self.partitions[lane_of_job(job.id)].events
        last = next(data for key, _, data, _ in reversed(events) if key == job.id)
        return last.traversed

    def _check_assignments(self, lane: Lane, out: LaneOutput) -> None:
        """Only a worker that is there gets a job, of a queue and a task it announced, into a free slot, once."""
        for _, name, said in out.assignments:
            if isinstance(said, wire.RunJob):
                worker = lane.workers.get(name)
                assert worker is not None
                assert said.queue in worker.announced.queues
                assert said.task in worker.announced.tasks
                assert 0 < len(worker.held) <= worker.announced.slots
                assert worker.held[said.job_id] == said.lease
                assert self.leases.get(said.job_id, -1) < said.lease

    def check(self) -> None:
        for number, (lane, partition) in enumerate(zip(self.lanes, self.partitions, strict=True)):
            self._check_state(lane, partition)
            self._check_holders(lane)
            self._check_waiting(lane)
            self._check_keys(lane, partition)
            for job_id, fold in self.folds.items():
                if lane_of_job(job_id) == number:
                    self._check_fold(lane, fold)

    def _check_state(self, lane: Lane, partition: Partition) -> None:
        """The state topic holds what the lane holds, and nothing else."""
        private = tuple(kind.prefix for kind in FEATURES if kind.prefix is not None)
        kept = {key: read_state(key, one) for key, one in partition.state.items() if not key.startswith(private)}
        assert kept == lane.jobs
        assert {f"{WORKER_KEY}{name}" for name, worker in lane.workers if worker.announced.all_queues} == {
            key for key in partition.state if key.startswith(WORKER_KEY)
        }

    def _check_holders(self, lane: Lane) -> None:
        """A Processing job is held by one worker under its lease, and nobody holds anything else."""
        held = [(job_id, name, lease) for name, worker in lane.workers for job_id, lease in worker.held.items()]
        running = [job for job in lane.jobs.values() if job.state is State.PROCESSING]
        assert sorted(held) == sorted((job.id, job.worker, job.lease) for job in running)
        for _, worker in lane.workers:
            suspects = [job_id for job_id in worker.held if lane.jobs[job_id].lost >= SUSPECT_LOSSES]
            assert suspects == ([worker.suspect] if worker.suspect is not None else [])
        for queue, gate in lane.pipeline.store.gates.items():
            assert gate.running == sum(job.queue == queue for job in running)

    def _check_waiting(self, lane: Lane) -> None:
        """Every job that waits has one place, and no place is counted whose job has left it."""
        states = Counter(job.state for job in lane.jobs.values())
        store = lane.pipeline.store
        assert sum(map(len, store.ready.values())) + len(store.held) == states[State.ENQUEUED]
        assert all(lane.pipeline.store.ready.values())
        assert len(lane.pipeline.store.due) == states[State.SCHEDULED]
        assert [len(one.waiting) for one in lane.features if isinstance(one, FailedJobs)] == [states[State.FAILED]]

    def _check_keys(self, lane: Lane, partition: Partition) -> None:
        """Who claims a key follows from the jobs' records; who claims it for a period, from those of the feature."""
        keys = next(one for one in lane.features if isinstance(one, UniqueKeys))
        loaded = UniqueKeys(lane.pipeline)
        for job in lane.jobs.values():
            if job.extras is not None and job.extras.uses & UniqueKeys.uses:
                loaded.found(job, self.now_ms)
        assert {place: sorted(one) for place, one in keys.claims.items()} == {
            place: sorted(one) for place, one in loaded.claims.items()
        }
        assert {UNIQUE_KEY + place for place in keys.periods} == {
            key for key in partition.state if key.startswith(UNIQUE_KEY)
        }

    def _check_unique(self, job: Job) -> None:
        """Of a queue's key one job lives, unless it is debounced: then one runs, and another one waits."""
        if job.extras is None or job.extras.unique is None:
            return
        live = self.keyed[place_of(job)]
        live.pop(job.id, None)
        others = [
            one
            for one in live.values()
            if {one.extras.unique.until, job.extras.unique.until} == {UniqueUntil.END}  # type: ignore[union-attr]
        ]
        if job.state in FINAL_STATES:
            return
        live[job.id] = job
        if job.state is State.PROCESSING:
            assert all(one.state is not State.PROCESSING for one in others)
        if job.extras.unique.policy is not UniquePolicy.DEBOUNCE:
            assert all(one.extras.unique.policy is UniquePolicy.DEBOUNCE for one in others)  # type: ignore[union-attr]

    def _check_fold(self, lane: Lane, fold: Job) -> None:
        """Nothing is lost: a job is live in its lane as the log tells it, or has ended and is remembered."""
        live = lane.jobs.get(fold.id)
        if live is None:
            assert fold.state in FINAL_STATES
            assert lane.ended.get(fold.id) == (fold.state, fold.version)
            return
        assert fold.state not in {State.SUCCEEDED, State.DELETED}
        assert lane.ended.get(fold.id) is None
        assert facts(live) == facts(fold)

    # --- the end ---

    def settle(self, announce: Callable[[], None], turns_max: int = 200, checked_each: int = 1) -> None:
        """All timers are lost, everything is read, and what runs succeeds, until nothing is left to do."""
        for turns in range(1, turns_max):
            announce()
            for number, lane in enumerate(self.lanes):
                for job in list(lane.jobs.values()):
                    if job.worker is not None:
                        self.report(number, done(job.id, job.lease, job.worker))
            for number in range(LANES):
                self.turn(number, 1000, 1000)
            if turns % checked_each == 0:
                self.check()
            if all(not lane.jobs for lane in self.lanes):
                return
            self.now_ms += 7_000 if turns % 20 else DAY_MS + 1
        raise AssertionError([job for lane in self.lanes for job in lane.jobs.values()])


def facts(job: Job) -> dict[str, Any]:
    """What both its lane and a reader of its events know of a job, as far as it counts in the job's state."""
    unknown = {"traceparent", "continuations", "spec"}  # of those, a reader knows only the last, in another form
    if job.state not in {State.ENQUEUED, State.PROCESSING}:
        unknown.add("ready_ms")
    if job.state is State.SCHEDULED:
        unknown.add("lost")  # its event does not tell; the next one does
    if job.state not in {State.SCHEDULED, State.AWAITING, State.FAILED}:
        unknown.add("due_ms")
    if job.state is not State.AWAITING:
        unknown |= {"parent", "on"}
    known = {name: getattr(job, name) for name in Job.__struct_fields__ if name not in unknown}
    return {**known, "spec": created_with(job.spec)}


def reread(event: wire.JobEvent) -> wire.JobEvent:
    """The event as a reader has it; msgspec cannot decode a Raw that may be None, so `spec` goes by itself."""
    fields = json.decode(encode(event), type=dict[str, Raw])
    spec = fields.pop("spec", None)
    return structs.replace(json.decode(encode(fields), type=wire.JobEvent), spec=spec)


@lru_cache
def created_with(spec: bytes) -> JobSpec:
    return JobSpec.model_validate_json(spec)


def done(job_id: str, lease: int, worker: str) -> wire.RunSucceeded:
    return wire.RunSucceeded(job_id=job_id, lease=lease, worker=worker, duration_ms=1.0, started_ms=NOW)
