"""The lanes of an installation, with the records between them and their clock, in memory and in the calling thread.

A turn of a lane is what an elector makes of it: all commands and reports that are there, then time, then the ready
jobs to free slots. What it writes is delivered at once: events to the log, reports to the other lanes in the order in
which they were written, timers to a heap that `advance_to` fires. It is over when no lane has anything left to read.

What other processes do by the clock (time-outs of runs, recurring jobs) are alarms: the clock stops at each instant
that one of them foresees, and whenever the lanes are at rest they are asked whether there is something to do.
"""

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from math import ceil
from typing import Final, Protocol

from joblog.services.testing.told import EventLog
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode, read_command, read_report
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import JoblogError
from joblog.streams.lane.filters import ElectFilter, FilterChain, RetryFilter
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.transitions import Election

#: Turns that one input may lead to.
TURNS_MAX: Final = 10_000
#: Between two timers time passes in so many steps at most, if there are jobs: what lanes do by the clock is late by
#: one of them.
STEPS_MAX: Final = 20
STEP_MS: Final = 1_000


class EndlessTurns(JoblogError):
    """Lanes tell each other something without end: an error in an elect-state filter, or in Joblog."""


class NotSimulated(JoblogError):
    """Something that a Joblog in memory does not have."""


class Alarm(Protocol):
    """What a process does by the clock."""

    def next_ms(self) -> int | None:
        """When it will have something to do, as far as it can tell; None if it cannot."""

    def look(self) -> bool:
        """Do what is due; whether there was something. Called whenever the lanes are at rest."""


class Broker:
    """The lanes; `assigned` are the runs that they gave out and nobody took yet.

    - on_cancel: called with the orders to stop runs. on_step: called whenever the clock was moved, before the lanes.
    - alarms: see above.
    """

    def __init__(
        self, lanes: int, rules: LaneRules, filters: Iterable[ElectFilter], now_ms: int, log: EventLog
    ) -> None:
        self.now_ms = now_ms
        self.lanes = [Lane(number, lanes, rules) for number in range(lanes)]
        for lane in self.lanes:
            lane.loaded(now_ms)
        self._chain = FilterChain((RetryFilter(), *filters))
        self._log = log
        self._commands: list[deque[bytes]] = [deque() for _ in range(lanes)]
        self._reports: list[deque[bytes]] = [deque() for _ in range(lanes)]
        self._taken = 0
        self._timers: list[tuple[int, int, wire.Timer]] = []
        self._timed = 0
        self.assigned: deque[wire.RunJob] = deque()
        self.on_cancel: Callable[[wire.CancelJob], object] = lambda _order: None
        self.on_step: Callable[[], object] = lambda: None
        self.alarms: list[Alarm] = []
        self._is_looking = False

    # --- what others write ---

    def command(self, lane: int, value: bytes) -> None:
        """A client sends a command. Each takes a millisecond: jobs are as old as the order of their creation says."""
        self._commands[lane].append(value)
        self.now_ms += 1
        self.settle()

    def report(self, lane: int, value: bytes) -> None:
        """A worker, a timer or another lane reports; `settle` lets it be read."""
        self._reports[lane].append(value)

    # --- turns ---

    def settle(self) -> None:
        """Let the lanes read until nothing is left, and the alarms do what is due then."""
        self._rest()
        if self._is_looking:
            return
        self._is_looking = True
        try:
            for _ in range(TURNS_MAX):
                if not any(alarm.look() for alarm in self.alarms):
                    return
                self._rest()
        finally:
            self._is_looking = False
        raise EndlessTurns(f"what happens by the clock did not come to rest within {TURNS_MAX} turns")

    def _rest(self) -> None:
        for _ in range(TURNS_MAX):
            waiting = [
                number
                for number, lane in enumerate(self.lanes)
                if self._commands[number] or self._reports[number] or lane.pipeline.store.has_released
            ]
            if not waiting:
                return
            for number in waiting:
                self._turn(number)
        raise EndlessTurns(f"the lanes did not come to rest within {TURNS_MAX} turns")

    def _turn(self, number: int) -> None:
        lane, out = self.lanes[number], LaneOutput()
        election = Election(self.now_ms, self.now_ms, self._chain.elect, self._chain.watched)
        commands, reports = self._commands[number], self._reports[number]
        while commands:
            value = commands.popleft()
            received = read_command(value, None)
            target = lane.lane_of(received.command)
            if target == number:
                lane.command(received, self._next(), election, out)
            else:
                self._commands[target].append(value)
        while reports:
            lane.heard(self.now_ms)
            lane.report(read_report(reports.popleft()), f"reports/{number}@{self._next()}", election, out)
        lane.tick(True, election, out)
        lane.assign(election, out)
        self._deliver(number, out)

    def _next(self) -> int:
        self._taken += 1
        return self._taken

    def _deliver(self, number: int, out: LaneOutput) -> None:
        for event in out.events:
            self._log.add(number, event, self.now_ms)
        for lane, _key, report in out.reports:
            self._reports[lane].append(encode(report))
        for timer in out.timers:
            self._timed += 1
            heappush(self._timers, (timer.due_ms, self._timed, timer))
        for _partition, _worker, assignment in out.assignments:
            match assignment:
                case wire.RunJob():
                    self.assigned.append(assignment)
                case wire.CancelJob():
                    self.on_cancel(assignment)
                case wire.OrderWorker():
                    raise NotSimulated("workers cannot be told to be quiet or to stop: there is none")
                case wire.ServeQueue():
                    pass  # the worker asks in the lane of each job

    # --- time ---

    @property
    def next_due_ms(self) -> int | None:
        """When the next timer is due whose job still waits for it."""
        while self._timers:
            due_ms, _, timer = self._timers[0]
            job = self.lanes[lane_of_job(timer.job_id)].jobs.get(timer.job_id)
            if job is not None and job.version == timer.version:
                return due_ms
            heappop(self._timers)
        return None

    @property
    def next_ms(self) -> int | None:
        """When the next timer or alarm is due."""
        foreseen = [self.next_due_ms, *(alarm.next_ms() for alarm in self.alarms)]
        return min((one for one in foreseen if one is not None), default=None)

    def advance_to(self, target_ms: int) -> None:
        """Let time pass up to this instant, and let happen what is due at each instant on the way."""
        for _ in range(TURNS_MAX):
            next_ms = self.next_ms
            if next_ms is None or next_ms > target_ms:
                self._pass_time(target_ms)
                return
            self._pass_time(max(next_ms, self.now_ms))
            while self._timers and self._timers[0][0] <= self.now_ms:
                timer = heappop(self._timers)[2]
                due = wire.JobDue(job_id=timer.job_id, version=timer.version)
                self.report(lane_of_job(timer.job_id), encode(due))
                self.settle()
            self.settle()
        raise EndlessTurns(
            f"something is due at more than {TURNS_MAX} instants on the way: let less time pass at once"
        )

    def _pass_time(self, until_ms: int) -> None:
        began_ms, length_ms = self.now_ms, until_ms - self.now_ms
        steps = min(STEPS_MAX if any(lane.jobs for lane in self.lanes) else 1, ceil(length_ms / STEP_MS))
        for step in range(1, steps + 1):
            self.now_ms = began_ms + length_ms * step // steps
            self.on_step()
            for number in range(len(self.lanes)):
                self._turn(number)
            self.settle()
