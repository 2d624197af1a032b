"""The workers of a lane: what they announce, when they are lost, which jobs they get."""

from collections import deque
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import State
from joblog.streams.lane.continuations import LaneContinuations
from joblog.streams.lane.filters import policy_of
from joblog.streams.lane.job import Job
from joblog.streams.lane.jobs import evolved
from joblog.streams.lane.outbox import Outbox
from joblog.streams.lane.queue import ReadyQueue
from joblog.streams.lane.slots import WorkerSlots
from joblog.streams.lane.transitions import Assigned, Election, Lost, decide
from msgspec import Raw

WORKER_KEY: Final = "worker:"


class LaneWorkers(LaneContinuations):
    """Workers and their slots; built on `LaneContinuations`."""

    def _announced(self, report: wire.WorkerAnnounced, cause: str, election: Election, out: Outbox) -> None:
        now_ms = election.now_ms
        known = self.workers.get(report.worker)
        before = known.announced if known is not None else None
        worker, changed = self.workers.announce(report, election.clock_ms)
        worker.seen_log_ms = self.log_ms
        if changed:
            out.state[WORKER_KEY + report.worker] = report
        if not report.home:
            return
        if before is None or _face(before) != _face(report):
            self._worker_event("worker.started", worker, cause, now_ms, out)
        elif now_ms - worker.written_ms >= self.rules.alive_ms:
            self._worker_event("worker.alive", worker, cause, now_ms, out)

    def _worker_event(self, kind: str, worker: WorkerSlots, cause: str, now_ms: int, out: Outbox) -> None:
        worker.written_ms = now_ms
        said = worker.announced
        data = wire.WorkerEvent(
            said.worker, said.all_queues, said.all_slots, said.tasks, said.host, said.pid, said.started_at
        )
        out.events.append((said.worker, kind, f"{cause}/{said.worker}/{kind}", data, cause, None))

    def _gone(self, name: str, kind: str, cause: str, election: Election, out: Outbox) -> None:
        """A worker stopped or was lost: what it still held is elected anew, in parts if it is much."""
        worker = self.workers.get(name)
        if worker is None:
            return
        for job_id in tuple(worker.held):
            if out.budget.is_spent:
                worker.gone = kind
                return
            job = self.jobs[job_id]
            own = self._task_policy(name, job.task)
            policy = policy_of(job, own)
            lost = Lost(name, policy.count_lost or job.lost >= policy.lost_max, own)
            self._decided(job, lost, cause, election, out)
        self.workers.remove(name)
        out.state[WORKER_KEY + name] = None
        if worker.announced.home:
            self._worker_event(kind, worker, cause, election.now_ms, out)

    def _task_policy(self, name: str, task: str) -> Retry | None:
        """What a worker announced as the task's own retry policy."""
        worker = self.workers.get(name)
        return worker.announced.policies.get(task) if worker is not None else None

    def assign(self, election: Election, out: Outbox) -> None:
        """Hand free slots to ready jobs: highest priority first, then oldest; workers take turns.

        No more than the turn's budget allows: `is_unfilled` tells that the next turn goes on with it.
        """
        for queue in tuple(self._ready):
            if out.budget.is_spent:
                break
            names = self.workers.serving(queue)
            if names:
                ready = self._ready[queue]
                self._fill(ready, names, election, out)
                if not ready:
                    del self._ready[queue]
        self.is_unfilled = out.budget.is_spent and bool(self._ready)
        out.state.update(self.ended.write())

    def _fill(self, ready: ReadyQueue, names: deque[str], election: Election, out: Outbox) -> None:
        idle = 0  # workers in a row that have no room, or know none of the tasks
        while idle < len(names) and not out.budget.is_spent:
            worker = self.workers.get(names[0])
            names.rotate(-1)
            assert worker is not None
            job = ready.pop(worker.tasks, self.jobs) if worker.room > 0 else None
            if job is None:
                idle += 1
            else:
                idle = 0
                self._start(job, worker, election, out)

    def _start(self, job: Job, worker: WorkerSlots, election: Election, out: Outbox) -> None:
        name = worker.announced.worker
        decision = decide(job, Assigned(name), election)
        assert type(decision) is tuple
        started = evolved(job, decision, f"{job.id}/{job.version}", election.now_ms, out)
        if started.state is not State.PROCESSING:  # a filter elected otherwise
            self._moved(job, started, out)
            return
        self.jobs[job.id] = started
        out.state[job.id] = started
        out.budget.spend(3, 2 * len(job.spec) + len(job.parameters))
        worker.held[job.id] = started.lease
        run = wire.RunJob(
            job_id=job.id,
            lease=started.lease,
            attempt=started.attempt,
            lane=self.number,
            task=job.task,
            queue=job.queue,
            spec=Raw(job.spec),
            parameters=Raw(job.parameters),
            ready_ms=job.ready_ms,
            traceparent=job.traceparent,
        )
        out.assignments.append((worker.announced.partition, name, run))


def _face(said: wire.WorkerAnnounced) -> tuple[object, ...]:
    """What people see of a worker; the slots it offers this lane just now are not part of it."""
    return (said.all_queues, said.all_slots, said.tasks, said.started_at)
