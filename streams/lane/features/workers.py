"""The workers of a lane: what they announce, when they are lost, which jobs they get, and how their runs end.

A worker's last announcement is its record. The jobs that it holds are not in it: they are the Processing ones.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Final, get_args

from joblog.streams.contract import wire
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import PROCESSING, State
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.lane.feature import CommandHandler, Feature, ReportHandler
from joblog.streams.lane.features.slots import WorkerRegistry, WorkerSlots
from joblog.streams.lane.features.worker_orders import ORDERS, ordered, worker_event
from joblog.streams.lane.filters import policy_of
from joblog.streams.lane.job import Job
from joblog.streams.lane.limits.gate import AnyGate
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.queue import ReadyQueue
from joblog.streams.lane.transitions import Election, Expired, Lost, decide
from msgspec import Raw, msgpack, structs

WORKER_KEY: Final = "worker:"
#: What moves a job while its run goes on, which has to be told.
_CANCELLING: Final = frozenset({*get_args(wire.AnyChange), Expired})
#: The event of a worker whose lease ran out.
LOST: Final = "worker.lost"


#: A job whose worker was lost so often may be what kills workers. A worker gets one such job of a lane at a time, so
#: that others, which merely run beside it, are not lost with it until that is a failure (RetryPolicy.lost_max).
#: Not after the first loss: a machine that dies should not slow down all the jobs that it had.
SUSPECT_LOSSES: Final = 2


#: A worker serves a queue in a further lane for at least this long after it was told to; it is told again before.
TOLD_MS: Final = 20_000


class Workers(Feature):
    """The workers that announced themselves to this lane, and the assignment of its ready jobs to their slots.

    - is_unfilled: slots are free and jobs are ready, but the last turn's transaction was full.
    """

    prefix: ClassVar = WORKER_KEY
    decoder: ClassVar = msgpack.Decoder(wire.WorkerAnnounced)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.registry = WorkerRegistry()
        self.is_unfilled = False
        self._gates = pipeline.store.gates
        #: Jobs that are held back because each worker runs another suspect, in the order in which they came.
        self._apart: deque[str] = deque()

    # --- loading ---

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        self.registry.announce(value, clock_ms)

    def loaded(self, clock_ms: int) -> None:
        for job in self.pipeline.store.jobs.values():
            if job.state is PROCESSING and job.worker is not None:
                worker = self._known_or_ghost(job.worker, clock_ms)
                worker.held[job.id] = job.lease
                if job.lost >= SUSPECT_LOSSES:
                    worker.suspect = job.id

    def _known_or_ghost(self, worker: str, clock_ms: int) -> WorkerSlots:
        """The worker, or an entry for one that may still announce itself until its lease is over."""
        known = self.registry.get(worker)
        if known is None:
            unknown = wire.WorkerAnnounced(
                worker=worker, partition=0, queues=(), all_queues=(), slots=0, all_slots=0, tasks=(),
                started_at=EPOCH,
            )  # fmt: skip
            known, _ = self.registry.announce(unknown, clock_ms)
        return known

    # --- what workers report ---

    def reports(self) -> Mapping[type, ReportHandler]:
        return {
            wire.RunSucceeded: self.pipeline.report,
            wire.RunFailed: self._failed,
            wire.RunReleased: self.pipeline.report,
            wire.RunProgressed: self._progressed,
            wire.WorkerAnnounced: self._announced,
            wire.WorkerStopping: self._stopping,
            wire.QueueElsewhere: self._elsewhere,
        }

    def _failed(self, report: wire.RunFailed, cause: str, election: Election, out: LaneOutput) -> None:
        job = self.pipeline.store.jobs.get(report.job_id)
        if job is not None and report.retry is None:
            report = structs.replace(report, retry=self._task_policy(report.worker, job.task))
        self.pipeline.report(report, cause, election, out)

    def _progressed(self, report: wire.RunProgressed, cause: str, election: Election, out: LaneOutput) -> None:
        out.budget.spend(0, sum(map(len, report.lines)))
        self.pipeline.report(report, cause, election, out)

    def _announced(self, report: wire.WorkerAnnounced, cause: str, election: Election, out: LaneOutput) -> None:
        known = self.registry.get(report.worker)
        before = known.announced if known is not None else None
        worker, changed = self.registry.announce(report, election.clock_ms)
        worker.seen_log_ms = self.pipeline.log_clock.ms
        if changed:
            out.state[WORKER_KEY + report.worker] = report
        if not report.home:
            return
        if before is None or _face(before) != _face(report):
            worker_event("worker.started", worker, cause, election.now_ms, out)
        elif election.now_ms - worker.written_ms >= self.pipeline.rules.alive_ms:
            worker_event("worker.alive", worker, cause, election.now_ms, out)

    def _stopping(self, report: wire.WorkerStopping, cause: str, election: Election, out: LaneOutput) -> None:
        self._gone(report.worker, "worker.stopped", cause, election, out)

    def _elsewhere(self, report: wire.QueueElsewhere, _cause: str, election: Election, out: LaneOutput) -> None:
        """Tell the workers of a queue of a lane that has jobs of it, those again that heard it long ago."""
        place, now_ms = (report.queue, report.lane), election.clock_ms
        for name in self.registry.serving(report.queue):
            worker = self.registry.get(name)
            if worker is not None and now_ms - worker.told_ms.get(place, -TOLD_MS) >= TOLD_MS:
                worker.told_ms[place] = now_ms
                serve = wire.ServeQueue(queue=report.queue, lane=report.lane)
                out.assignments.append((worker.announced.partition, name, serve))

    # --- what people tell them ---

    def commands(self) -> Mapping[type, CommandHandler]:
        return dict.fromkeys(ORDERS, partial(ordered, self.registry, self.pipeline.number))

    def _task_policy(self, name: str, task: str) -> Retry | None:
        """The task's own retry policy, as a worker announced it."""
        worker = self.registry.get(name)
        return worker.announced.policies.get(task) if worker is not None else None

    # --- who is lost ---

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Find the workers whose lease has run out.

        Where other reports were appended for `lease_ms` after the worker's last one, the log shows it. Where nobody
        reports any more, this process's own clock decides, but only when `caught_up`: an elector that is behind must
        not take its own delay for a worker's silence. Setting a clock, here or at a broker, affects neither.
        """
        lease_ms, log_ms = self.pipeline.rules.lease_ms, self.pipeline.log_clock.ms
        for name, worker in self.registry:
            if worker.gone is not None:
                self._gone(name, worker.gone, f"gone/{election.now_ms}", election, out)
                continue
            silent = worker.seen_log_ms is not None and log_ms - worker.seen_log_ms > lease_ms
            if silent or (caught_up and election.clock_ms - worker.seen_ms > lease_ms):
                self._gone(name, LOST, f"lease/{election.now_ms}", election, out)

    def _gone(self, name: str, kind: str, cause: str, election: Election, out: LaneOutput) -> None:
        """Remove a worker that stopped or was lost, and elect its jobs anew, over several turns if they are many."""
        worker = self.registry.get(name)
        if worker is None:
            return
        for job_id in tuple(worker.held):
            if out.budget.is_spent:
                worker.gone = kind
                return
            job = self.pipeline.store.jobs[job_id]
            own = self._task_policy(name, job.task)
            policy = policy_of(job, own)
            lost = Lost(name, policy.count_lost or job.lost >= policy.lost_max, own)
            self.pipeline.apply(job, lost, cause, election, out)
            if kind == LOST:
                out.counts["joblog_jobs_lost_total", job.queue, job.task] += 1
        self.registry.remove(name)
        out.state[WORKER_KEY + name] = None
        if worker.announced.home:
            worker_event(kind, worker, cause, election.now_ms, out)
            if kind == LOST:
                out.counts["joblog_workers_lost_total",] += 1

    # --- which jobs they have ---

    def left(self) -> Mapping[State, Callable[[Job, Job, Any, LaneOutput], None]]:
        return {PROCESSING: self._let_go}

    def _let_go(self, before: Job, job: Job, what: Any, out: LaneOutput) -> None:
        """Free the slot of a job that left Processing; where that was not its run's end, cancel the worker's run."""
        if job.state is PROCESSING:
            return
        if type(what) in _CANCELLING:
            worker = self.registry.get(before.worker or "")
            if worker is not None:
                cancel = wire.CancelJob(job_id=job.id, lease=before.lease, reason=f"The job is {job.state}")
                out.assignments.append((worker.announced.partition, worker.announced.worker, cancel))
        self.registry.release(before.worker, job.id)
        if self._gates and (gate := self._gates.get(before.queue)) is not None:
            gate.ended()

    def assign(self, election: Election, out: LaneOutput) -> None:
        """Assign ready jobs to free slots: highest priority first, then oldest; workers take turns.

        Stops when the turn's budget is spent; `is_unfilled` then says that the next turn has to continue.
        """
        if self._apart:
            self._release_suspects()
        store = self.pipeline.store
        queues, paused, gates = store.ready, store.paused, store.gates
        if gates:
            store.assigned_ms = election.now_ms
        for queue in tuple(queues):
            if out.budget.is_spent:
                break
            if queue in paused:
                continue
            names = self.registry.serving(queue)
            if names:
                ready = queues[queue]
                gate = gates.get(queue) if gates else None
                self._fill(ready, names, gate, election, out)
                if gate is not None and gate.is_shared:
                    gate.wants = self._could_start(ready, names)
                if not ready and queues.get(queue) is ready:
                    del queues[queue]
        self.is_unfilled = out.budget.is_spent and bool(queues)

    def _could_start(self, ready: ReadyQueue, names: Iterable[str]) -> int:
        """How many jobs of a queue these workers have room for; if it is not 0, one of them could start at least."""
        found = [self.registry.get(name) for name in names]
        free = [worker for worker in found if worker is not None and worker.room > 0]
        return min(sum(worker.room for worker in free), ready.count(frozenset().union(*(one.tasks for one in free))))

    def _fill(
        self, ready: ReadyQueue, names: deque[str], gate: AnyGate | None, election: Election, out: LaneOutput
    ) -> None:
        jobs, idle = self.pipeline.store.jobs, 0  # workers in a row that have no room, or know none of the tasks
        while idle < len(names) and not out.budget.is_spent:
            if gate is not None and not gate.is_open(election.now_ms):
                return
            worker = self.registry.get(names[0])
            if len(names) > 1:
                names.rotate(-1)
            assert worker is not None
            job = ready.pop(worker.tasks, jobs) if worker.room > 0 else None
            while job is not None and job.extras is not None:
                free = self._asked(job, election, out)
                if free is not None:
                    job = free
                    break
                job = None if out.budget.is_spent else ready.pop(worker.tasks, jobs)
            if job is None:
                idle += 1
            else:
                idle = 0
                found = worker if job.lost < SUSPECT_LOSSES else self._without_suspect(job, names)
                if found is not None:
                    self._start(job, found, election, out)
                    if gate is not None and job.id in found.held:
                        gate.started(election.now_ms)
                else:
                    self.pipeline.store.hold(job)
                    self._apart.append(job.id)

    def _release_suspects(self) -> None:
        """Let as many suspects into their queues as there are workers without one."""
        free = sum(worker.suspect is None and worker.room > 0 for _, worker in self.registry)
        for _ in range(min(free, len(self._apart))):
            self.pipeline.store.release(self._apart.popleft())

    def _without_suspect(self, suspect: Job, names: Iterable[str]) -> WorkerSlots | None:
        """The first of these workers that may start a suspect."""
        for name in names:
            worker = self.registry.get(name)
            if worker is not None and worker.suspect is None and worker.room > 0 and suspect.task in worker.tasks:
                return worker
        return None

    def _asked(self, job: Job, election: Election, out: LaneOutput) -> Job | None:
        """The job if all features that it uses let it start; else it is held back, or has moved on."""
        assert job.extras is not None
        asked = self.pipeline.hooks.may_start(job.extras.uses)
        if not asked:
            return job
        self.pipeline.store.hold(job)
        if any(hook(job, election, out) is not None for hook in asked):
            return None
        return self.pipeline.store.unhold(job.id)

    def _start(self, job: Job, worker: WorkerSlots, election: Election, out: LaneOutput) -> None:
        pipeline, job_id, spec, parameters = self.pipeline, job.id, job.spec, job.parameters
        decision = decide(job, worker.assigned, election)
        assert type(decision) is tuple
        started = pipeline.evolved(job, decision, f"{job_id}/{job.version}", election.now_ms, out)
        pipeline.move(job, started, worker.assigned, election, out, is_taken=True)
        if started.state is not PROCESSING:  # a filter elected otherwise
            return
        worker.held[job_id] = started.lease
        if started.lost >= SUSPECT_LOSSES:
            worker.suspect = job_id
        out.budget.spend(1, len(spec) + len(parameters))
        run = wire.RunJob(
            job_id=job_id,
            lease=started.lease,
            attempt=started.attempt,
            lane=pipeline.number,
            task=job.task,
            queue=job.queue,
            spec=Raw(spec),
            parameters=Raw(parameters),
            ready_ms=job.ready_ms,
            traceparent=job.traceparent,
        )
        out.assignments.append((worker.announced.partition, worker.announced.worker, run))


def _face(announced: wire.WorkerAnnounced) -> tuple[object, ...]:
    """What people see of a worker; the number of slots that it offers to this lane is not part of it."""
    return (announced.all_queues, announced.all_slots, announced.tasks, announced.started_at, announced.quiet)
