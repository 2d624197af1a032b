"""The jobs of a lane: where each waits, and what follows when one moves."""

from collections.abc import Iterable
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.lane.ended_jobs import EndedJobs
from joblog.streams.lane.job import Job, event_type, evolve
from joblog.streams.lane.outbox import Outbox
from joblog.streams.lane.queue import ReadyQueue
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.slots import Workers
from joblog.streams.lane.transitions import Election, Rejected, decide
from joblog.streams.lane.verdicts import CONTINUATIONS_MAX, reason, verdict
from joblog.streams.lane.waiting import Waiting

#: Longer than the interval in which a worker renews (3 s): where one reports, no step is longer.
LOG_STEP_MAX_MS: Final = 4_000


class LaneJobs:
    """All jobs of a lane and the places where they wait; the ground floor of `Lane`."""

    def __init__(self, number: int, lanes: int, rules: LaneRules) -> None:
        self.number = number
        self.lanes = lanes
        self._hex = f"{number:03x}"
        self.rules = rules
        self.jobs: dict[str, Job] = {}
        self.workers = Workers()
        self.ended = EndedJobs(rules.remembered)
        self._ready: dict[str, ReadyQueue] = {}
        self._due = Waiting(State.SCHEDULED)
        self._failed = Waiting(State.FAILED)
        self._pending: dict[str, tuple[tuple[str, str, int], ...]] = {}
        #: The time that passed in the log while reports were read here, milliseconds since the lane was loaded.
        self.log_ms = 0
        self._appended_ms: int | None = None
        #: Slots are free and jobs are ready, but the last turn's transaction was full.
        self.is_unfilled = False

    def heard(self, appended_ms: int) -> None:
        """A report was read that the broker appended at this time (unix milliseconds, by the broker's clock).

        The clock may jump: it is set, or the partition's leader moves to a broker with another one. So the log's
        time is added up from record to record, and a step counts for `LOG_STEP_MAX_MS` at most. Where that is
        less than what really passed, nobody reported at all, and the elector's own clock decides.
        """
        if self._appended_ms is not None:
            self.log_ms += min(max(appended_ms - self._appended_ms, 0), LOG_STEP_MAX_MS)
        self._appended_ms = appended_ms

    def _settle(self, job: Job) -> None:
        """Put a job where its state has it wait."""
        if job.state is State.ENQUEUED:
            queue = self._ready.get(job.queue)
            if queue is None:
                queue = self._ready[job.queue] = ReadyQueue()
            queue.add(job)
        elif job.state is State.SCHEDULED:
            self._due.add((job.due_ms, job.id, job.version))
        elif job.state is State.FAILED:
            self._failed.add((job.due_ms, job.id, job.version))

    def _left(self, before: Job) -> None:
        """Note that a job is not where it was any more, or has another version there."""
        if before.state is State.ENQUEUED:
            queue = self._ready.get(before.queue)
            if queue is not None:
                queue.left(before.task, self.jobs)
                if not queue:
                    del self._ready[before.queue]
        elif before.state is State.SCHEDULED:
            self._due.left(self.jobs)
        elif before.state is State.FAILED:
            self._failed.left(self.jobs)

    def _has_queue(self, queue: str) -> bool:
        """Whether the queue, or one of its shards, lives in this lane."""
        return self.rules.has_queue(queue, self.number, self.lanes)

    def _decided(self, job: Job, what: Any, cause: str, election: Election, out: Outbox) -> Rejected | None:
        decision = decide(job, what, election)
        if isinstance(decision, Rejected):
            return decision
        after = evolved(job, decision, cause, election.now_ms, out)
        if job.state is State.PROCESSING and after.state is not State.PROCESSING and isinstance(what, wire.Change):
            self._cancel(job, after, out)
        is_live = job.id in self.jobs  # else it is revived
        self._moved(job, after, out)
        if is_live:
            self._left(job)
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
        is_revived = before.id not in self.jobs
        self.jobs[job.id] = job
        out.state[job.id] = job
        out.budget.spend(2, len(job.spec))
        if before.state is State.PROCESSING and job.state is not State.PROCESSING:
            self.workers.release(before.worker, job.id)
        # Also when its state stayed: what waits for it knows it by its version, which is another now.
        self._settle(job)
        if job.state is State.SCHEDULED:
            out.timers.append(wire.Timer(job.id, job.version, job.due_ms))
        elif job.state in FINAL_STATES and (job.state is not before.state or is_revived):
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

    def _forget_failed(self, now_ms: int, out: Outbox) -> None:
        rules = self.rules
        while (entry := self._failed.first(self.jobs)) and (
            len(self._failed) > rules.failed_kept or entry[0] + rules.failed_ms < now_ms
        ):
            job = self.jobs[self._failed.pop()[1]]
            for child, on in job.continuations:  # they could wait for ever
                self._tell(job.id, job.state, child, on, out)
            self._forget(job, out)


def evolved(job: Job, events: Iterable[wire.JobEvent], cause: str, now_ms: int, out: Outbox) -> Job:
    """The job after these events, which are written."""
    after = job
    for event in events:
        after = evolve(after, event, now_ms)
        out.events.append((job.id, event_type(event), f"{job.id}/{event.version}", event, cause, job.traceparent))
    return after
