"""One lane: its jobs, queues and workers; commands and reports in, an outbox out.

Theory of operation. A lane has one writer, the elector that owns it, so everything here is plain state in
memory, changed by one input after another. Nothing is read or written outside: what the world shall learn is
put into an `Outbox`, and counts once the elector has committed it. If that fails, the lane is thrown away and
loaded again from the `state` topic, so this file never undoes anything.

A job lives here from its first event until it ends. A Failed one stays, since somebody may requeue it; of a
Succeeded or Deleted one only the id is remembered for a while.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from sys import intern
from typing import Any

from joblog.streams import wire
from joblog.streams.continuations import CONTINUATIONS_MAX, reason, verdict
from joblog.streams.filters import policy_of
from joblog.streams.ids import hashed_job_id, lane_of_job, lane_of_queue
from joblog.streams.job import (
    Assigned,
    Election,
    Job,
    Lost,
    Rejected,
    born,
    decide,
    event_type,
    evolve,
    first_event,
    revived,
)
from joblog.streams.memory import EndedJobs
from joblog.streams.outbox import Outbox, StateValue
from joblog.streams.queue import ReadyQueue
from joblog.streams.slots import Workers, WorkerSlots
from joblog.streams.states import FINAL_STATES, ContinueOn, State
from joblog.streams.timestamps import EPOCH
from msgspec import Raw, json, structs

_encode = json.Encoder().encode
WORKER_KEY = "worker:"
PENDING_KEY = "pending:"


@dataclass(frozen=True, slots=True)
class LaneRules:
    """The numbers that a lane decides by; all times in milliseconds.

    - lease_ms: a worker that did not renew for so long is lost.
    - overdue_ms: a scheduled job so late is elected without its timer.
    - pending_ms: how long a continuation waits for a parent that nobody has created yet.
    - alive_ms: how often a renewing worker is written as an event.
    - failed_kept, failed_ms: how many Failed jobs stay at hand for a requeue, and for how long.
    - remembered: how many ended jobs a lane remembers.
    """

    lease_ms: int = 15_000
    overdue_ms: int = 5_000
    pending_ms: int = 60_000
    alive_ms: int = 60_000
    failed_kept: int = 10_000
    failed_ms: int = 30 * 86_400_000
    remembered: int = 30_000
    shards: Mapping[str, int] = field(default_factory=dict)


class Lane:
    """The state machine of one lane; see the module's docstring."""

    def __init__(self, number: int, lanes: int, rules: LaneRules) -> None:
        self.number = number
        self.lanes = lanes
        self._hex = f"{number:03x}"
        self.rules = rules
        self.jobs: dict[str, Job] = {}
        self.workers = Workers()
        self.ended = EndedJobs(rules.remembered)
        self._ready: dict[str, ReadyQueue] = {}
        self._due: list[tuple[int, str, int]] = []
        self._failed: deque[tuple[int, str, int]] = deque()
        self._pending: dict[str, tuple[tuple[str, str, int], ...]] = {}
        #: The latest time at which the broker appended a report that was read here.
        self.log_ms = 0

    # --- loading ---

    def load(self, key: str, value: StateValue, now_ms: int) -> None:
        """Take one record of the `state` topic; the last one of each key wins, so tombstones are not loaded."""
        if isinstance(value, Job):
            value.queue, value.task = intern(value.queue), intern(value.task)
            self.jobs[value.id] = value
        elif isinstance(value, wire.WorkerAnnounced):
            self.workers.announce(value, now_ms)
        elif value is not None:
            self._pending[key.removeprefix(PENDING_KEY)] = value

    def loaded(self, now_ms: int) -> None:
        """All records are there: build what follows from them."""
        for job in self.jobs.values():
            self._settle(job)
            if job.state is State.PROCESSING and job.worker is not None:
                self._known_or_ghost(job.worker, now_ms).held[job.id] = job.lease
        self._failed = deque(sorted(self._failed))

    def _known_or_ghost(self, worker: str, now_ms: int) -> WorkerSlots:
        """The worker, or a place for one that has said nothing yet: it may, until its lease is over."""
        known = self.workers.get(worker)
        if known is None:
            nothing = wire.WorkerAnnounced(
                worker=worker, partition=0, queues=(), all_queues=(), slots=0, all_slots=0, tasks=(),
                started_at=EPOCH,
            )  # fmt: skip
            known, _ = self.workers.announce(nothing, now_ms)
        return known

    def _settle(self, job: Job) -> None:
        """Put a job where its state has it wait."""
        if job.state is State.ENQUEUED:
            queue = self._ready.get(job.queue)
            if queue is None:
                queue = self._ready[job.queue] = ReadyQueue()
            queue.add(job)
        elif job.state is State.SCHEDULED:
            heappush(self._due, (job.due_ms, job.id, job.version))
        elif job.state is State.FAILED:
            self._failed.append((job.due_ms, job.id, job.version))

    # --- commands ---

    def lane_of(self, command: wire.Command) -> int:
        """Where a command belongs; this lane, if it names none."""
        job_id = command.job_id
        if job_id is not None:
            return self.number if job_id[15:18] == self._hex else lane_of_job(job_id)
        if isinstance(command, wire.CreateJob) and not self._has_queue(command.queue):
            return lane_of_queue(command.queue, self.lanes)
        return self.number

    def _has_queue(self, queue: str) -> bool:
        """Whether the queue, or one of its shards, lives in this lane."""
        distance = (self.number - lane_of_queue(queue, self.lanes)) % self.lanes
        return distance < self.rules.shards.get(queue, 1)

    def command(self, received: wire.Received, position: str, election: Election, out: Outbox) -> None:
        """Decide a command that belongs here."""
        command = received.command
        rejected = (
            self._create(command, received, election.now_ms, out)
            if isinstance(command, wire.CreateJob)
            else self._change(command, received, election, out)
        )
        if rejected is not None:
            self.reject(rejected, received, position, out)

    def reject(self, rejected: Rejected, received: wire.Received, position: str, out: Outbox) -> None:
        """Say in the log that a command could not be done, and why."""
        command = received.command
        data = wire.CommandRejected(
            rejected.code, rejected.reason, command.type, received.id, command.job_id, position
        )
        self.rejected(data, received.traceparent, out)

    def rejected(self, data: wire.CommandRejected, traceparent: str | None, out: Outbox) -> None:
        """Write a rejection; the elector calls this for what it could not even read."""
        key = data.job_id or data.command_id or data.position or ""
        cause = data.command_id or data.position
        out.events.append((key, "command.rejected", f"{data.position}/rejected", data, cause, traceparent))
        out.counts["joblog_commands_rejected_total", data.code] += 1

    def _create(self, create: wire.CreateJob, received: wire.Received, now_ms: int, out: Outbox) -> Rejected | None:
        job_id = create.job_id
        if job_id is None:
            job_id = self._derived_id(create, received)
        elif not self._has_queue(create.queue):
            return Rejected("wrong_lane", f"queue {create.queue} does not live in lane {self.number} of the job id")
        if job_id in self.jobs or self.ended.get(job_id) is not None:
            return Rejected("duplicate", f"job {job_id} exists already")
        if create.parent is not None and (rejected := self._unfit(create.parent, job_id)):
            return rejected
        spec = _encode(
            wire.JobSpec(
                create.args,
                create.kwargs,
                create.priority,
                create.retry,
                create.timeout_s,
                Raw(_encode(create.parameters)) if create.parameters else wire.EMPTY_OBJECT,
                create.parent,
                create.idempotency_key,
            )
        )
        event = first_event(create, spec, now_ms)
        job = born(job_id, event, spec, create.priority, now_ms)
        job.traceparent = received.traceparent
        if job_id in self._pending:
            self._adopt(job, out)
        self.jobs[job_id] = job
        out.state[job_id] = job
        out.events.append((job_id, event_type(event), f"{job_id}/1", event, received.id, job.traceparent))
        self._settle(job)
        if job.state is State.SCHEDULED:
            out.timers.append(wire.Timer(job_id, 1, job.due_ms))
        elif job.parent is not None and job.on is not None:
            link = wire.ContinuationAdded(job_id=job.parent, child=job_id, on=job.on)
            out.reports.append((lane_of_job(job.parent), job.parent, link))
        return None

    def _unfit(self, parent: wire.Parent, job_id: str) -> Rejected | None:
        """Why no job could wait for this one, if so."""
        if parent.job_id == job_id:
            return Rejected("invalid", "a job cannot wait for itself")
        lane = lane_of_job(parent.job_id)
        if lane >= self.lanes:
            return Rejected("unknown_job", f"the parent's id names lane {lane}, and there are only {self.lanes}")
        return None

    def _derived_id(self, create: wire.CreateJob, received: wire.Received) -> str:
        if create.idempotency_key is not None:
            return hashed_job_id(self.number, create.queue, create.idempotency_key)
        return hashed_job_id(self.number, received.source, received.id)

    def _change(
        self, command: wire.Change, received: wire.Received, election: Election, out: Outbox
    ) -> Rejected | None:
        job = self.jobs.get(command.job_id)
        if job is None:
            found = self._revived(command)
            if isinstance(found, Rejected):
                return found
            job = found
        if isinstance(command, wire.RequeueJob) and command.queue is not None and not self._has_queue(command.queue):
            return Rejected("wrong_lane", f"queue {command.queue} does not live in the job's lane {self.number}")
        rejected = self._decided(job, command, received.id, election, out)
        if rejected is None and job.id in self.jobs:
            self._lives_again(job.id, out)
        return rejected

    def _lives_again(self, job_id: str, out: Outbox) -> None:
        self.ended.remove(job_id)
        if job_id in self._pending:
            self._adopt(self.jobs[job_id], out)

    def _revived(self, command: wire.Change) -> Job | Rejected:
        """An ended job that the command brings along, or why there is none."""
        remembered = self.ended.get(command.job_id)
        snapshot = getattr(command, "snapshot", None)
        if snapshot is None:
            if remembered is None:
                return Rejected("unknown_job", "no such live job; an ended one needs its snapshot to be revived")
            return Rejected("ended", f"the job ended as {remembered[0]}; only a requeue with its snapshot revives it")
        assert isinstance(snapshot, wire.Snapshot)
        if remembered is not None and remembered[1] != snapshot.version:
            return Rejected("wrong_version", f"the snapshot has version {snapshot.version}, the job {remembered[1]}")
        if snapshot.state not in FINAL_STATES:
            return Rejected("unknown_job", f"the snapshot's state {snapshot.state} is not final, yet the job is gone")
        if not self._has_queue(snapshot.queue):
            return Rejected("wrong_lane", f"queue {snapshot.queue} does not live in the job's lane {self.number}")
        return revived(command.job_id, snapshot)

    # --- reports ---

    def report(self, report: wire.AnyReport, cause: str, election: Election, out: Outbox) -> None:
        """Decide a report; a stale one is counted and dropped."""
        if isinstance(report, wire.RunReport | wire.JobDue | wire.ParentEnded):
            job = self.jobs.get(report.job_id)
            if job is None or self._decided(job, report, cause, election, out) is not None:
                out.counts["joblog_stale_reports_total", str(type(report).__struct_config__.tag)] += 1
        elif isinstance(report, wire.WorkerAnnounced):
            self._announced(report, cause, election.now_ms, out)
        elif isinstance(report, wire.WorkerStopping):
            self._gone(report.worker, "worker.stopped", cause, election, out)
        else:
            self._continuation(report, election.now_ms, out)

    def _announced(self, report: wire.WorkerAnnounced, cause: str, now_ms: int, out: Outbox) -> None:
        known = self.workers.get(report.worker)
        before = known.announced if known is not None else None
        worker, changed = self.workers.announce(report, now_ms)
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
        """A worker stopped or was lost: what it still held is elected anew."""
        worker = self.workers.get(name)
        if worker is None:
            return
        for job_id in tuple(worker.held):
            job = self.jobs[job_id]
            policy = policy_of(job)
            lost = Lost(name, policy.count_lost or job.lost >= policy.lost_max)
            self._decided(job, lost, cause, election, out)
        self.workers.remove(name)
        out.state[WORKER_KEY + name] = None
        if worker.announced.home:
            self._worker_event(kind, worker, cause, election.now_ms, out)

    # --- continuations ---

    def _continuation(self, link: wire.ContinuationAdded, now_ms: int, out: Outbox) -> None:
        parent = self.jobs.get(link.job_id)
        if parent is not None:
            self._wait_or_tell(parent, link.child, link.on, out)
            return
        remembered = self.ended.get(link.job_id)
        if remembered is not None:
            self._tell(link.job_id, remembered[0], link.child, link.on, out)
            return
        # The parent's own command may not have been read yet, for it lies in another partition.
        waiting = self._pending.get(link.job_id, ())
        if len(waiting) >= CONTINUATIONS_MAX:
            self._turn_away(link.job_id, link.child, out)
            return
        self._pending[link.job_id] = (*waiting, (link.child, link.on.value, now_ms))
        out.state[PENDING_KEY + link.job_id] = self._pending[link.job_id]

    def _adopt(self, parent: Job, out: Outbox) -> None:
        links = self._pending.pop(parent.id)
        parent.continuations = tuple(dict.fromkeys((child, ContinueOn(on)) for child, on, _ in links))
        out.state[PENDING_KEY + parent.id] = None

    def _wait_or_tell(self, parent: Job, child: str, on: ContinueOn, out: Outbox) -> None:
        if verdict(on, parent.state) != "wait":
            self._tell(parent.id, parent.state, child, on, out)
        elif (child, on) in parent.continuations:
            pass  # said twice
        elif len(parent.continuations) >= CONTINUATIONS_MAX:
            self._turn_away(parent.id, child, out)
        else:
            waiting = structs.replace(parent, continuations=(*parent.continuations, (child, on)))
            self.jobs[parent.id] = out.state[parent.id] = waiting

    def _tell(self, parent: str, state: State, child: str, on: ContinueOn, out: Outbox) -> None:
        outcome = verdict(on, state)
        word = wire.ParentEnded(
            job_id=child, parent=parent, state=state, run=outcome == "run", reason=reason(parent, state, outcome)
        )
        out.reports.append((lane_of_job(child), child, word))

    def _turn_away(self, parent: str, child: str, out: Outbox, why: str | None = None) -> None:
        """Let a continuation be deleted, since its parent cannot be waited for."""
        said = why or f"Job {parent} has {CONTINUATIONS_MAX} continuations already"
        word = wire.ParentEnded(job_id=child, parent=parent, state=None, run=False, reason=said)
        out.reports.append((lane_of_job(child), child, word))

    # --- time ---

    def tick(self, caught_up: bool, election: Election, out: Outbox) -> None:
        """What time alone brings about.

        A lease has run out when the log shows it: other reports were appended `lease_ms` after the worker's
        last one. Where nobody reports any more, this process's own clock decides, but only when `caught_up`
        tells that nothing is left to be read: a late elector must not call the workers late.
        """
        now_ms = election.now_ms
        while self._due and self._due[0][0] + self.rules.overdue_ms <= now_ms:
            due_ms, job_id, version = heappop(self._due)
            job = self.jobs.get(job_id)
            if job is not None and job.version == version and job.state is State.SCHEDULED:
                self._decided(job, wire.JobDue(job_id=job_id, version=version), f"overdue/{due_ms}", election, out)
        self._forget_failed(now_ms, out)
        lease_ms = self.rules.lease_ms
        for name, worker in self.workers:
            silent = worker.seen_log_ms and self.log_ms - worker.seen_log_ms > lease_ms
            if silent or (caught_up and now_ms - worker.seen_ms > lease_ms):
                self._gone(name, "worker.lost", f"lease/{worker.seen_ms}", election, out)
        if not caught_up:
            return
        for parent, links in list(self._pending.items()):
            if now_ms - links[-1][2] > self.rules.pending_ms:
                self._give_up(parent, out)

    def next_due_ms(self) -> int | None:
        """When the first scheduled job would be overdue, or None."""
        return self._due[0][0] + self.rules.overdue_ms if self._due else None

    def _give_up(self, parent: str, out: Outbox) -> None:
        for child, _, _ in self._pending.pop(parent):
            why = f"Job {parent} is unknown: it was never created, or ended too long ago"
            self._turn_away(parent, child, out, why)
        out.state[PENDING_KEY + parent] = None

    def _forget_failed(self, now_ms: int, out: Outbox) -> None:
        rules = self.rules
        while self._failed and (
            len(self._failed) > rules.failed_kept or self._failed[0][0] + rules.failed_ms < now_ms
        ):
            _, job_id, version = self._failed.popleft()
            job = self.jobs.get(job_id)
            if job is not None and job.version == version:
                for child, on in job.continuations:  # they could wait for ever
                    self._tell(job.id, job.state, child, on, out)
                self._forget(job, out)

    # --- slots ---

    def assign(self, election: Election, out: Outbox) -> None:
        """Hand free slots to ready jobs: highest priority first, then oldest; workers take turns."""
        for queue in tuple(self._ready):
            names = self.workers.serving(queue)
            if names:
                ready = self._ready[queue]
                self._fill(ready, names, election, out)
                if not ready:
                    del self._ready[queue]

    def _fill(self, ready: ReadyQueue, names: deque[str], election: Election, out: Outbox) -> None:
        idle = 0  # workers in a row that have no room, or know none of the tasks
        while idle < len(names):
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
        cause = f"{job.id}/{job.version}"
        started = job
        for event in decision:
            started = evolve(started, event, election.now_ms)
            out.events.append((job.id, event_type(event), f"{job.id}/{event.version}", event, cause, job.traceparent))
        if started.state is not State.PROCESSING:  # a filter elected otherwise
            self._moved(job, started, out)
            return
        self.jobs[job.id] = started
        out.state[job.id] = started
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

    # --- what follows from a decision ---

    def _decided(self, job: Job, what: Any, cause: str, election: Election, out: Outbox) -> Rejected | None:
        decision = decide(job, what, election)
        if isinstance(decision, Rejected):
            return decision
        after = job
        for event in decision:
            after = evolve(after, event, election.now_ms)
            out.events.append((job.id, event_type(event), f"{job.id}/{event.version}", event, cause, job.traceparent))
        if job.state is State.PROCESSING and after.state is not State.PROCESSING and isinstance(what, wire.Change):
            self._cancel(job, after, out)
        self._moved(job, after, out)
        return None

    def _cancel(self, job: Job, after: Job, out: Outbox) -> None:
        """Tell the worker that the run it holds is void."""
        assert job.worker is not None
        worker = self.workers.get(job.worker)
        if worker is not None:
            word = wire.CancelJob(job_id=job.id, lease=job.lease, reason=f"The job is {after.state}")
            out.assignments.append((worker.announced.partition, job.worker, word))

    def _moved(self, before: Job, job: Job, out: Outbox) -> None:
        """Take a job from where it was to where it is now."""
        self.jobs[job.id] = job
        out.state[job.id] = job
        if before.state is State.PROCESSING and job.state is not State.PROCESSING:
            self.workers.release(before.worker, job.id)
        # Also when its state stayed: what waits for it knows it by its version, which is another now.
        self._settle(job)
        if job.state is State.SCHEDULED:
            out.timers.append(wire.Timer(job.id, job.version, job.due_ms))
        elif job.state in FINAL_STATES and job.state is not before.state:
            self._end(job, out)

    def _end(self, job: Job, out: Outbox) -> None:
        waiting = []
        for child, on in job.continuations:
            if verdict(on, job.state) == "wait":
                waiting.append((child, on))
            else:
                self._tell(job.id, job.state, child, on, out)
        job.continuations = tuple(waiting)
        if job.state is not State.FAILED:
            self._forget(job, out)

    def _forget(self, job: Job, out: Outbox) -> None:
        del self.jobs[job.id]
        self.ended.add(job.id, job.state, job.version)
        out.state[job.id] = None


def _face(said: wire.WorkerAnnounced) -> tuple[object, ...]:
    """What people see of a worker; the slots it offers this lane just now are not part of it."""
    return (said.all_queues, said.all_slots, said.tasks, said.started_at)
