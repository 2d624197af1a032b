"""One lane: commands, reports and time in, a `LaneOutput` out.

Theory of operation. A lane has one writer, the elector that owns it, so everything here is plain state in memory,
changed by one input after another. There is no I/O: what is to be written is put into a `LaneOutput`, and holds once
the elector has committed it. If that fails, the lane is dropped and loaded again from the `state` topic, so nothing
here is ever undone.

A lane is composed: the pipeline (pipeline.py) holds the jobs and is the only way to move one; commands.py decides
commands; everything else is a feature (features/) that hooks into the pipeline. This file only passes each input to
the part that handles it.

A job is here from its first event until it ends. A Failed one is kept for a while, since it may be requeued; of a
Succeeded or Deleted one only the id is remembered.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from sys import intern
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job, lane_of_queue
from joblog.streams.contract.states import State
from joblog.streams.lane import commands
from joblog.streams.lane.feature import Feature, ReportHandler, declared
from joblog.streams.lane.features.catalog import FEATURES
from joblog.streams.lane.features.slots import WorkerRegistry
from joblog.streams.lane.features.workers import Workers
from joblog.streams.lane.job import Job, share_batch
from joblog.streams.lane.output import LaneOutput, StateValue
from joblog.streams.lane.pipeline import Hooks, Pipeline
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.transitions import Election, Rejection

#: Overdue jobs elected in one turn; there are ten turns a second.
OVERDUE_MAX: Final = 500


class Lane:
    """The state machine of one lane; see the module's docstring."""

    def __init__(
        self, number: int, lanes: int, rules: LaneRules, features: tuple[type[Feature], ...] = FEATURES
    ) -> None:
        self.number = number
        self.lanes = lanes
        self.rules = rules
        self._hex = f"{number:03x}"
        self.pipeline = Pipeline(number, lanes, rules)
        #: To be called with each report's append time (unix milliseconds, the broker's clock), before it is decided.
        self.heard: Final = self.pipeline.log_clock.heard
        self.jobs = self.pipeline.store.jobs
        self.ended = self.pipeline.ended
        self.features = tuple(kind(self.pipeline) for kind in features)
        self.pipeline.hooks = _hooks(self.features)
        self._ticks = declared(self.features, "tick")
        self._wakes = declared(self.features, "wakes_ms")
        self._turn_ends = declared(self.features, "turn_ended")
        self._reports: dict[type, ReportHandler] = {wire.JobDue: self.pipeline.report}
        for feature in self.features:
            self._reports.update(feature.reports())
        self._commands = {kind: handler for one in self.features for kind, handler in one.commands().items()}
        self._workers = next(one for one in self.features if isinstance(one, Workers))

    @property
    def workers(self) -> WorkerRegistry:
        """The workers that announced themselves to this lane."""
        return self._workers.registry

    @property
    def is_unfilled(self) -> bool:
        """Whether slots may be free for jobs that are ready, although nothing comes in."""
        return self._workers.is_unfilled or self.pipeline.store.has_released

    @property
    def wakes_ms(self) -> int | None:
        """When the next tick had better come, unix milliseconds; None if any time will do."""
        return min((at_ms for wakes in self._wakes if (at_ms := wakes()) is not None), default=None)

    # --- loading ---

    def load(self, key: str, value: StateValue, clock_ms: int) -> None:
        """Load one record of the `state` topic; only the last one of each key counts, and no tombstones."""
        if isinstance(value, Job):
            value.queue, value.task = intern(value.queue), intern(value.task)
            if value.extras is not None:
                share_batch(value)
            self.jobs[value.id] = value
            return
        for feature in self.features:
            if feature.prefix is not None and key.startswith(feature.prefix):
                feature.load(key.removeprefix(feature.prefix), value, clock_ms)
                return

    def reports_lost(self) -> None:
        """Called before `loaded` if reports to this lane were lost, and it goes on without them."""
        for feature in self.features:
            feature.reports_lost()

    def loaded(self, clock_ms: int) -> None:
        """Called when all records are loaded: place the jobs, and let the features build what they need."""
        store, entered = self.pipeline.store, self.pipeline.hooks.entered
        for job in self.jobs.values():
            store.place(job)
            for hook in entered.get(job.state, ()):
                hook(job)
            if job.extras is not None:
                for feature in self.features:
                    if feature.uses & job.extras.uses:
                        feature.found(job, clock_ms)
        for feature in self.features:
            feature.loaded(clock_ms)

    # --- commands ---

    def lane_of(self, command: wire.Command) -> int:
        """The lane that a command belongs to; this one if it names none."""
        job_id = command.job_id
        if job_id is not None:
            return self.number if job_id[15:18] == self._hex else lane_of_job(job_id)
        if isinstance(command, wire.CreateJob):
            if command.idempotency_key is not None:  # as a client chooses it, so that both make the same id of it
                key = command.idempotency_key if command.unique is None else command.unique.key
                return self.pipeline.rules.lane_of_key(command.queue, key, self.lanes)
            if command.unique is not None:
                return self.pipeline.rules.lane_of_key(command.queue, command.unique.key, self.lanes)
            if not self.pipeline.has_queue(command.queue):
                return lane_of_queue(command.queue, self.lanes)
        return self.number

    def command(self, received: wire.Received, offset: int, election: Election, out: LaneOutput) -> None:
        """Decide a command that belongs here; `offset` is where it is in the lane's partition of `commands`."""
        kind = type(received.command)
        if kind is wire.CreateJob:
            rejected = commands.create(self.pipeline, received, election, out)
        elif kind in self._commands:
            rejected = self._commands[kind](received, election, out)
        else:
            rejected = commands.change(self.pipeline, received, election, out)
        if rejected is not None:
            self.reject(rejected, received, offset, out)

    def reject(self, rejected: Rejection, received: wire.Received, offset: int, out: LaneOutput) -> None:
        """Write that a command was rejected, and why."""
        command = received.command
        data = wire.CommandRejected(
            rejected.code,
            rejected.reason,
            command.type,
            received.id,
            command.job_id,
            self.position(offset),
            rejected.existing,
        )
        self.rejected(data, received.traceparent, out)

    def position(self, offset: int) -> str:
        """A place in the lane's partition of `commands`, as events name it."""
        return f"commands/{self.number}@{offset}"

    def rejected(self, data: wire.CommandRejected, traceparent: str | None, out: LaneOutput) -> None:
        """Write a rejection; called directly for commands that could not be read."""
        key = data.job_id or data.command_id or data.position or ""
        cause = data.command_id or data.position
        out.events.append((key, "command.rejected", f"{data.position}/rejected", data, cause, traceparent))
        out.counts["joblog_commands_rejected_total", data.code] += 1

    # --- reports ---

    def report(self, report: wire.AnyReport, cause: str, election: Election, out: LaneOutput) -> None:
        """Decide a report; a stale one is counted and dropped."""
        self._reports[type(report)](report, cause, election, out)

    # --- time, and the end of a turn ---

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Let time pass; `caught_up` if everything in the lane's topics has been read."""
        # Not all overdue jobs at once: after an outage they would be too many for a transaction.
        self.pipeline.elect_overdue(OVERDUE_MAX, election, out)
        for tick in self._ticks:
            tick(caught_up, election, out)

    def assign(self, election: Election, out: LaneOutput) -> None:
        """End a turn: assign ready jobs to free slots, and let the features write what they collected."""
        self.pipeline.store.has_released = False
        self._workers.assign(election, out)
        for turn_ended in self._turn_ends:
            turn_ended(out)


def _hooks(features: tuple[Feature, ...]) -> Hooks:
    hooks = Hooks()
    hooks.may_start = _by_uses(features, "may_start")
    hooks.moved = _by_uses(features, "moved")
    hooks.creating = _by_uses(features, "creating")
    hooks.changing = _by_uses(features, "changing")
    hooks.created = _by_state([one.created() for one in features])
    hooks.entered = _by_state([one.entered() for one in features])
    hooks.left = _by_state([one.left() for one in features])
    return hooks


def _by_uses(features: tuple[Feature, ...], hook: str) -> Callable[[int], tuple[Any, ...]]:
    """The hooks of a job by the bits of what it uses."""
    known = [(one.uses, found) for one in features for found in declared((one,), hook)]
    return cache(lambda uses: tuple(found for bits, found in known if bits & uses))


def _by_state(tables: Sequence[Mapping[Any, Callable[..., Any]]]) -> dict[State, tuple[Callable[..., Any], ...]]:
    """The hooks of each state, in the order of the features; a state without any has no entry."""
    states = {state: tuple(table[state] for table in tables if state in table) for state in State}
    return {state: hooks for state, hooks in states.items() if hooks}
