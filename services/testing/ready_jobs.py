"""Which job runs next: the highest priority, then the oldest, over all lanes; at once, or while time passes."""

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf
from typing import Final

from joblog.services.testing.broker import Broker
from joblog.services.testing.inline_worker import InlineWorker
from joblog.services.testing.told import EventLog
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import ENQUEUED
from joblog.streams.errors import JoblogError, UnknownTask

#: How long `over_time` waits for jobs that are held back, at first and at last: a paused queue may never go on.
HELD_MS: Final = 100
HELD_MS_MAX: Final = 86_400_000
#: What becomes ready so long after the end of `over_time` is run, too: each command of the last instant takes 1 ms.
CLOSE_MS: Final = 1_000


class ReadyJobs:
    """Offers the worker's slot to the queue of the job that is next."""

    def __init__(self, broker: Broker, log: EventLog, worker: InlineWorker) -> None:
        self._broker, self._log, self._worker = broker, log, worker
        self._ready: list[tuple[int, int, str]] = []

    def runs(self, queue: str | None = None, by_ms: float = inf) -> Iterator[str]:
        """Run what is ready, and becomes ready meanwhile (by this instant); the id of each job when it was run."""
        while (job_id := self.run_one(queue, by_ms)) is not None:
            yield job_id

    def over_time(self, until_ms: int | None) -> Iterator[str]:
        """The same while time passes to this instant; or else until no schedule, retry or limit is waited for."""
        by_ms = inf if until_ms is None else until_ms + CLOSE_MS
        yield from self.runs(by_ms=by_ms)
        broker, waited_ms = self._broker, 0
        while (next_ms := self._next_ms(waited_ms, until_ms)) is not None:
            waited_ms = max(next_ms - broker.now_ms, 0)
            waiting = {job_id for _, _, job_id in self._ready}
            broker.advance_to(max(next_ms, broker.now_ms))
            for job_id in self.runs(by_ms=by_ms):
                if job_id in waiting:  # and not one of a recurring job, which come for ever
                    waited_ms = 0
                yield job_id

    def _next_ms(self, waited_ms: int, until_ms: int | None) -> int | None:
        """Until when to wait: what is due next, or, if jobs are held back, twice as long as was waited in vain."""
        broker, now_ms = self._broker, self._broker.now_ms
        due_ms = broker.next_due_ms if until_ms is None else broker.next_ms
        is_held = any(broker.lanes[lane_of_job(job_id)].pipeline.store.held for _, _, job_id in self._ready)
        if is_held and waited_ms <= HELD_MS_MAX:
            held_ms = now_ms + max(2 * waited_ms, HELD_MS)
            due_ms = held_ms if due_ms is None else min(due_ms, held_ms)
        if until_ms is None:
            return due_ms
        return None if now_ms >= until_ms else min(until_ms, until_ms if due_ms is None else due_ms)

    def run_one(self, queue: str | None, by_ms: float = inf) -> str | None:
        """Offer a slot to the queue of the oldest ready job, then of the next one, until a lane takes it.

        Raises UnknownTask if there are ready jobs, and only such whose task is not known here.
        """
        if self._worker.is_running:
            raise JoblogError("a job is running: a task cannot run others, it creates them")
        for job_id in self._log.enqueued:
            self._note(job_id)
        self._log.enqueued.clear()
        passed: list[tuple[int, int, str]] = []
        try:
            return self._offer_to_first(queue, by_ms, passed)
        finally:
            for entry in passed:
                heappush(self._ready, entry)

    def _offer_to_first(self, queue: str | None, by_ms: float, passed: list[tuple[int, int, str]]) -> str | None:
        """Take jobs from `_ready`, those that are ready indeed into `passed`, until one could be run."""
        seen: set[tuple[int, str]] = set()
        unknown: set[str] = set()
        while self._ready:
            entry = heappop(self._ready)
            lane = lane_of_job(entry[2])
            job = self._broker.lanes[lane].jobs.get(entry[2])
            if job is None or job.state is not ENQUEUED:
                continue
            passed.append(entry)
            if (queue is not None and job.queue != queue) or job.ready_ms > by_ms:
                continue
            if job.task not in self._worker.tasks:
                unknown.add(job.task)
            elif (lane, job.queue) not in seen:
                self._worker.check(job.task)
                seen.add((lane, job.queue))
                if (taken := self._offer(lane, job.queue)) is not None:
                    return taken
        if unknown:
            raise UnknownTask(
                f"jobs of {', '.join(sorted(unknown))} are ready, and no such task is known here: give it, or its "
                "module, to InMemoryJoblog(...) or register(...)"
            )
        return None

    def _note(self, job_id: str) -> None:
        job = self._broker.lanes[lane_of_job(job_id)].jobs.get(job_id)
        if job is not None and job.state is ENQUEUED:
            heappush(self._ready, (-job.priority, job.created_ms, job_id))

    def _offer(self, lane: int, queue: str) -> str | None:
        """Let the lane assign a job of this queue, if it will, and run it; returns its id."""
        broker = self._broker
        self._worker.announce(lane, queue)
        broker.settle()
        self._worker.announce(lane, None)
        broker.settle()
        if not broker.assigned:
            return None
        run = broker.assigned.popleft()
        self._worker.perform(run)
        broker.settle()
        return run.job_id
