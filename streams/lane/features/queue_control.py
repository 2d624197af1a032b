"""Queues under control: paused, drained and resumed by commands; each lane does so for itself, with jobs or not.

A paused queue has a record. Its jobs are created, scheduled and changed as ever, but none starts; those that run go
on, and so do those that a worker has prefetched, which run or come back within its `release_after_s`. To drain a
queue is to pause it, and to be told, by an event, that none of its jobs runs any more.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.states import PROCESSING
from joblog.streams.contract.timestamps import time_ms
from joblog.streams.lane.feature import CommandHandler, Feature
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Rejection
from msgspec import Struct, msgpack

QUEUE_KEY: Final = "queue:"


class PausedQueue(Struct, frozen=True, array_like=True):
    """The record of a paused queue: until when (unix milliseconds, 0 for good), and whether it drains."""

    until_ms: int = 0
    draining: bool = False


def paused_queue(event: wire.QueueEvent) -> PausedQueue:
    """The record that an event `queue.paused` leads to."""
    return PausedQueue(time_ms(event.until) if event.until is not None else 0, event.drain)


class QueueControl(Feature):
    """The paused queues of a lane."""

    prefix: ClassVar = QUEUE_KEY
    decoder: ClassVar = msgpack.Decoder(PausedQueue)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self._paused: dict[str, PausedQueue] = {}
        #: Of each queue that drains, the jobs that run. No other one starts meanwhile: so they only become fewer.
        self._running: dict[str, set[str]] = {}

    # --- loading ---

    def load(self, key: str, value: PausedQueue, clock_ms: int) -> None:
        self._paused[key] = value
        self.pipeline.store.paused.add(key)

    def loaded(self, clock_ms: int) -> None:
        for queue, paused in self._paused.items():
            if paused.draining:
                self._running[queue] = self._all_running(queue)

    # --- commands ---

    def commands(self) -> Mapping[type, CommandHandler]:
        return {
            wire.PauseQueue: self._pause,
            wire.DrainQueue: self._pause,
            wire.ResumeQueue: self._resume,
        }

    def _pause(self, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
        command = received.command
        assert isinstance(command, wire.PauseQueue | wire.DrainQueue)
        queue, until = command.queue, command.until
        if until is not None and time_ms(until) <= election.now_ms:
            return Rejection("invalid", f"a pause until {until.isoformat()} has no effect: that is over")
        event = wire.QueueEvent(queue, command.by, command.reason, until, drain=isinstance(command, wire.DrainQueue))
        self._keep(queue, paused_queue(event), out)
        _write(out, "queue.paused", event, received.id)
        self._look(out, election.now_ms)
        return None

    def _resume(self, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
        command = received.command
        assert isinstance(command, wire.ResumeQueue)
        if command.queue not in self._paused:
            return Rejection("not_paused", f"queue {command.queue} is not paused in lane {self.pipeline.number}")
        self._end(wire.QueueEvent(command.queue, command.by, command.reason), received.id, out)
        return None

    # --- time ---

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        if self._paused:
            self._look(out, election.now_ms)

    def _look(self, out: LaneOutput, now_ms: int) -> None:
        """End pauses whose instant has come, and tell which queues have run dry."""
        for queue, paused in tuple(self._paused.items()):
            if 0 < paused.until_ms <= now_ms:
                until = datetime.fromtimestamp(paused.until_ms / 1000, UTC).isoformat(timespec="milliseconds")
                self._end(
                    wire.QueueEvent(queue, None, f"The pause lasted until {until}"), f"until/{paused.until_ms}", out
                )
            elif paused.draining:
                running = self._running[queue]
                running -= {one for one in running if not self._runs(one, queue)}
                if not running:
                    self._keep(queue, PausedQueue(paused.until_ms), out)
                    _write(out, "queue.drained", wire.QueueEvent(queue), f"drained/{now_ms}")

    def _all_running(self, queue: str) -> set[str]:
        return {job_id for job_id in self.pipeline.store.jobs if self._runs(job_id, queue)}

    def _runs(self, job_id: str, queue: str) -> bool:
        job = self.pipeline.store.jobs.get(job_id)
        return job is not None and job.state is PROCESSING and job.queue == queue

    def _keep(self, queue: str, paused: PausedQueue, out: LaneOutput) -> None:
        self._paused[queue] = paused
        self.pipeline.store.paused.add(queue)
        self._running.pop(queue, None)
        if paused.draining:
            self._running[queue] = self._all_running(queue)
        out.state[QUEUE_KEY + queue] = paused

    def _end(self, event: wire.QueueEvent, cause: str, out: LaneOutput) -> None:
        del self._paused[event.queue]
        self.pipeline.store.paused.remove(event.queue)
        self._running.pop(event.queue, None)
        out.state[QUEUE_KEY + event.queue] = None
        _write(out, "queue.resumed", event, cause)


def _write(out: LaneOutput, kind: str, event: wire.QueueEvent, cause: str) -> None:
    out.events.append((event.queue, kind, f"{cause}/{kind}/{event.queue}", event, cause, None))
