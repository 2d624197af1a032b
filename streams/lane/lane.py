"""One lane: its jobs, queues and workers; commands and reports in, an outbox out.

Theory of operation. A lane has one writer, the elector that owns it, so everything here is plain state in
memory, changed by one input after another. Nothing is read or written outside: what the world shall learn is
put into an `Outbox`, and counts once the elector has committed it. If that fails, the lane is thrown away and
loaded again from the `state` topic, so this file never undoes anything.

A job lives here from its first event until it ends. A Failed one stays, since somebody may requeue it; of a
Succeeded or Deleted one only the id is remembered for a while.
"""

from sys import intern

from joblog.streams.contract import wire
from joblog.streams.contract.ids import hashed_job_id, lane_of_job, lane_of_queue
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.lane.continuations import PENDING_KEY
from joblog.streams.lane.ended_jobs import ENDED_KEY, Block, block_number
from joblog.streams.lane.job import Job, born, event_type, first_event, revived
from joblog.streams.lane.outbox import Outbox, StateValue
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.slots import WorkerSlots
from joblog.streams.lane.transitions import Election, Rejected, elected_first
from joblog.streams.lane.workers import LaneWorkers
from msgspec import Raw, json, structs

_encode = json.Encoder().encode

#: Overdue jobs elected in one turn; there are ten turns a second.
OVERDUE_MAX = 500


class Lane(LaneWorkers):
    """The state machine of one lane; see the module's docstring."""

    def __init__(self, number: int, lanes: int, rules: LaneRules) -> None:
        super().__init__(number, lanes, rules)
        #: Blocks of ended jobs between `load` and `loaded`.
        self._loading: dict[int, Block] = {}

    # --- loading ---

    def load(self, key: str, value: StateValue, clock_ms: int) -> None:
        """Take one record of the `state` topic; the last one of each key wins, so tombstones are not loaded."""
        if isinstance(value, Job):
            value.queue, value.task = intern(value.queue), intern(value.task)
            self.jobs[value.id] = value
        elif isinstance(value, wire.WorkerAnnounced):
            self.workers.announce(value, clock_ms)
        elif value is not None and key.startswith(ENDED_KEY):
            self._loading[block_number(key)] = value
        elif value is not None:
            self._pending[key.removeprefix(PENDING_KEY)] = value

    def loaded(self, clock_ms: int) -> None:
        """All records are there: build what follows from them."""
        self.ended.load(self._loading, self.jobs)
        self._loading = {}
        for job in self.jobs.values():
            self._settle(job)
            if job.state is State.PROCESSING and job.worker is not None:
                self._known_or_ghost(job.worker, clock_ms).held[job.id] = job.lease

    def _known_or_ghost(self, worker: str, clock_ms: int) -> WorkerSlots:
        """The worker, or a place for one that has said nothing yet: it may, until its lease is over."""
        known = self.workers.get(worker)
        if known is None:
            nothing = wire.WorkerAnnounced(
                worker=worker, partition=0, queues=(), all_queues=(), slots=0, all_slots=0, tasks=(),
                started_at=EPOCH,
            )  # fmt: skip
            known, _ = self.workers.announce(nothing, clock_ms)
        return known

    # --- commands ---

    def lane_of(self, command: wire.Command) -> int:
        """Where a command belongs; this lane, if it names none."""
        job_id = command.job_id
        if job_id is not None:
            return self.number if job_id[15:18] == self._hex else lane_of_job(job_id)
        if isinstance(command, wire.CreateJob) and not self._has_queue(command.queue):
            return lane_of_queue(command.queue, self.lanes)
        return self.number

    def command(self, received: wire.Received, position: str, election: Election, out: Outbox) -> None:
        """Decide a command that belongs here."""
        command = received.command
        rejected = (
            self._create(command, received, election, out)
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

    def _create(
        self, create: wire.CreateJob, received: wire.Received, election: Election, out: Outbox
    ) -> Rejected | None:
        job_id, now_ms = create.job_id, election.now_ms
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
        if event.state in election.watched:
            event = elected_first(job_id, event, create, election)
        job = born(job_id, event, spec, create.priority, now_ms)
        job.traceparent = received.traceparent
        if job_id in self._pending:
            self._adopt(job, out)
        self.jobs[job_id] = job
        out.state[job_id] = job
        out.budget.spend(2, 2 * len(spec))
        out.events.append((job_id, event_type(event), f"{job_id}/1", event, received.id, job.traceparent))
        self._settle(job)
        if job.state is State.SCHEDULED:
            out.timers.append(wire.Timer(job_id, 1, job.due_ms))
        elif job.state in FINAL_STATES:  # a filter elected that
            self._end(job, out)
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
        job, waiting = self.jobs.get(command.job_id), None
        if job is None:
            found = self._revived(command)
            if isinstance(found, Rejected):
                return found
            job = found
            waiting = self._pending.get(job.id)
        if isinstance(command, wire.RequeueJob) and command.queue is not None and not self._has_queue(command.queue):
            return Rejected("wrong_lane", f"queue {command.queue} does not live in the job's lane {self.number}")
        if waiting is not None:
            self._adopt(job, out)
        rejected = self._decided(job, command, received.id, election, out)
        if rejected is not None and waiting is not None:
            self._pending[job.id] = out.state[PENDING_KEY + job.id] = waiting
        if rejected is None and job.id in self.jobs:
            self.ended.remove(job.id)
        return rejected

    def _revived(self, command: wire.Change) -> Job | Rejected:
        """An ended job that the command brings along, or why there is none."""
        remembered = self.ended.get(command.job_id)
        snapshot = getattr(command, "snapshot", None)
        if snapshot is None:
            if remembered is None:
                return Rejected("unknown_job", "no such live job; an ended one needs its snapshot to be revived")
            return Rejected("ended", f"the job ended as {remembered[0]}; only a requeue with its snapshot revives it")
        assert isinstance(snapshot, wire.Snapshot)
        if snapshot.state not in FINAL_STATES:
            return Rejected("unknown_job", f"the snapshot's state {snapshot.state} is not final, yet the job is gone")
        if remembered is not None and remembered != (snapshot.state, snapshot.version):
            said = f"the snapshot says {snapshot.state} at version {snapshot.version}"
            return Rejected("wrong_version", f"{said}, the job ended as {remembered[0]} at version {remembered[1]}")
        if not self._has_queue(snapshot.queue):
            return Rejected("wrong_lane", f"queue {snapshot.queue} does not live in the job's lane {self.number}")
        return revived(command.job_id, snapshot)

    # --- reports ---

    def report(self, report: wire.AnyReport, cause: str, election: Election, out: Outbox) -> None:
        """Decide a report; a stale one is counted and dropped."""
        if isinstance(report, wire.RunReport | wire.JobDue | wire.ParentEnded):
            job = self.jobs.get(report.job_id)
            if job is not None and isinstance(report, wire.RunFailed) and report.retry is None:
                report = structs.replace(report, retry=self._task_policy(report.worker, job.task))
            if job is None or self._decided(job, report, cause, election, out) is not None:
                out.counts["joblog_stale_reports_total", str(type(report).__struct_config__.tag)] += 1
        elif isinstance(report, wire.WorkerAnnounced):
            self._announced(report, cause, election, out)
        elif isinstance(report, wire.WorkerStopping):
            self._gone(report.worker, "worker.stopped", cause, election, out)
        else:
            self._continuation(report, election.now_ms, out)

    # --- time ---

    def tick(self, caught_up: bool, election: Election, out: Outbox) -> None:
        """What time alone brings about.

        A lease has run out when the log shows it: other reports were appended for `lease_ms` after the worker's
        last one. Where nobody reports any more, this process's own clock decides, but only when `caught_up`
        tells that nothing is left to be read: a late elector must not call the workers late. Neither is moved by
        a clock that is set, here or at the brokers.
        """
        now_ms = election.now_ms
        # Not all at once: after an outage they would be too many for a transaction.
        for _ in range(OVERDUE_MAX):
            entry = self._due.first(self.jobs)
            if entry is None or entry[0] + self.rules.overdue_ms > now_ms or out.budget.is_spent:
                break
            due_ms, job_id, version = entry
            word = wire.JobDue(job_id=job_id, version=version)
            self._decided(self.jobs[job_id], word, f"overdue/{due_ms}", election, out)
        self._forget_failed(now_ms, out)
        lease_ms = self.rules.lease_ms
        for name, worker in self.workers:
            if worker.gone is not None:
                self._gone(name, worker.gone, f"gone/{now_ms}", election, out)
                continue
            silent = worker.seen_log_ms is not None and self.log_ms - worker.seen_log_ms > lease_ms
            if silent or (caught_up and election.clock_ms - worker.seen_ms > lease_ms):
                self._gone(name, "worker.lost", f"lease/{now_ms}", election, out)
        if not caught_up:
            return
        for parent, links in list(self._pending.items()):
            if now_ms - links[-1][2] > self.rules.pending_ms:
                self._give_up(parent, out)
