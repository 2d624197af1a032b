"""One lane and its clock: what goes in, and what has come out since, in lines that read aloud."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from joblog.streams.contract import wire
from joblog.streams.contract.events import Event
from joblog.streams.contract.ids import lane_of_queue, new_job_id
from joblog.streams.contract.retry import Curve, Retry
from joblog.streams.contract.states import State
from joblog.streams.elector.lane_records import read_state, write_state
from joblog.streams.lane.feature import Feature
from joblog.streams.lane.features.catalog import FEATURES
from joblog.streams.lane.filters import ElectFilter, FilterChain, RetryFilter
from joblog.streams.lane.job import Job
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.transitions import Election
from msgspec import json
from pydantic import TypeAdapter

NOW = 1_800_000_000_000
STARTED_AT = datetime(2027, 1, 15, tzinfo=UTC)
BOOM = wire.JobException("shop.Boom", "no", "", ("shop.Boom",))
IN_A_MINUTE = Retry(curve=Curve.FIXED, delays_s=(60.0,), attempts=2)
NEVER = Retry(attempts=0)

_event = TypeAdapter[Event](Event)


def id_of(name: str, lane: int = 0) -> str:
    """The id of the job that a test calls by one letter."""
    return new_job_id(lane, NOW, ord(name))


def name_of(job_id: str) -> str:
    return chr(int(job_id[24:], 16))


def queue_in(lane: int, lanes: int) -> str:
    """The name of a queue that lives in this lane."""
    return next(f"q{n}" for n in range(1000) if lane_of_queue(f"q{n}", lanes) == lane)


@dataclass(frozen=True)
class Tick:
    """Time passes, and the lane looks at what that brings."""

    ms: int
    caught_up: bool = True


@dataclass(frozen=True)
class ClockSet:
    """The clock of the elector's machine is set, by so much."""

    ms: int


@dataclass(frozen=True)
class BrokerClockSet:
    """The broker's clock jumps: it is set, or the partition's leader moves to another broker."""

    ms: int


@dataclass(frozen=True)
class Pause:
    """Time passes, and the lane does not look."""

    ms: int


def create(name: str, *, lane: int = 0, lanes: int = 1, on: str | None = None, **fields: Any) -> wire.CreateJob:
    """Create the job `name`; `on` names its parent, if it has one in the same lane."""
    queue = fields.pop("queue", queue_in(lane, lanes))
    if on is not None:
        fields["parent"] = wire.Parent(id_of(on, lane))
    return wire.CreateJob(fields.pop("task", "t"), queue=queue, job_id=id_of(name, lane), **fields)


def worker(
    name: str = "w", slots: int = 1, *, queues: Sequence[str] = ("q0",), **fields: Any
) -> wire.WorkerAnnounced:
    said = {
        "all_queues": tuple(queues),
        "all_slots": slots,
        "tasks": ("t",),
        "partition": 0,
        "started_at": STARTED_AT,
        **fields,
    }
    return wire.WorkerAnnounced(worker=name, queues=tuple(queues), slots=slots, **said)


def succeeded(name: str, lease: int, by: str = "w", **fields: Any) -> wire.RunSucceeded:
    return wire.RunSucceeded(job_id=id_of(name), lease=lease, worker=by, duration_ms=1.0, started_ms=NOW, **fields)


def run_failed(name: str, lease: int, by: str = "w") -> wire.RunFailed:
    return wire.RunFailed(job_id=id_of(name), lease=lease, worker=by, exception=BOOM, duration_ms=1.0, started_ms=NOW)


def released(name: str, lease: int, by: str = "w", *, started: bool = False) -> wire.RunReleased:
    return wire.RunReleased(job_id=id_of(name), lease=lease, worker=by, reason="drained", started=started)


class Scene:
    """`given` what happened, `when` this comes in, `then` that is written."""

    def __init__(
        self,
        number: int = 0,
        lanes: int = 1,
        *,
        rules: LaneRules | None = None,
        filters: Sequence[ElectFilter] = (),
        features: tuple[type[Feature], ...] = FEATURES,
    ) -> None:
        self.rules = rules or LaneRules()
        self.features = features
        self.lane = Lane(number, lanes, self.rules, features)
        self.now_ms = NOW
        self.clock_ms = 1_000_000
        self.broker_ms = 0  # how far the broker's clock is ahead
        self.out = LaneOutput()
        self.kept: dict[str, bytes] = {}
        self._chain = FilterChain((RetryFilter(lambda: 0.0), *filters))
        self._inputs = 0

    def given(self, *inputs: Any) -> Self:
        return self.when(*inputs)

    def when(self, *inputs: Any) -> Self:
        """Let the lane take these in one turn, and assign what it can; what came out before is forgotten."""
        self.out = LaneOutput()
        for one in inputs:
            self._take(one)
        self.lane.assign(self._election(), self.out)
        for key, value in self.out.state.items():
            record = write_state(value)
            self.kept.pop(key, None)
            if record is not None:
                self.kept[key] = record
        return self

    def then(self, *lines: str) -> Self:
        """These events were written, in this order, and all of them fit the contract."""
        assert self.events == list(lines), self.events
        for _, kind, _, data, _, _ in self.out.events:
            _event.validate_python({**json.decode(json.encode(data)), "type": kind}, extra="forbid")
        return self

    def and_assigned(self, *lines: str) -> Self:
        found = [_assignment_line(worker, said) for _, worker, said in self.out.assignments]
        assert found == list(lines), found
        return self

    def and_told(self, *lines: str) -> Self:
        """These reports were sent to lanes."""
        found = [f"lane {lane}: {_report_line(report)}" for lane, _, report in self.out.reports]
        assert found == list(lines), found
        return self

    def reloaded(self) -> Self:
        """The lane as another elector would have it, from the records alone."""
        self.lane = Lane(self.lane.number, self.lane.lanes, self.rules, self.features)
        for key, value in self.kept.items():
            record = read_state(key, value)
            self.lane.load(key, record, self.clock_ms)
        self.lane.loaded(self.clock_ms)
        return self

    @property
    def events(self) -> list[str]:
        return [_event_line(key, kind, data) for key, kind, _, data, _, _ in self.out.events]

    @property
    def reasons(self) -> list[str | None]:
        return [getattr(data, "reason", None) for _, _, _, data, _, _ in self.out.events]

    def job(self, name: str) -> Job:
        return self.lane.jobs[id_of(name, self.lane.number)]

    def _take(self, one: Any) -> None:
        self._inputs += 1
        if isinstance(one, ClockSet):
            self.now_ms += one.ms
            self.broker_ms -= one.ms
        elif isinstance(one, BrokerClockSet):
            self.broker_ms += one.ms
        elif isinstance(one, Pause):
            self._pass(one.ms)
        elif isinstance(one, Tick):
            self._pass(one.ms)
            self.lane.tick(one.caught_up, self._election(), self.out)
        elif isinstance(one, wire.Report):
            self.lane.heard(self.now_ms + self.broker_ms)
            self.lane.report(one, f"reports/0@{self._inputs}", self._election(), self.out)
        else:
            received = one if isinstance(one, wire.Received) else wire.Received(f"c-{self._inputs}", "/test", one)
            self.lane.command(received, self._inputs, self._election(), self.out)

    def _pass(self, ms: int) -> None:
        self.now_ms += ms
        self.clock_ms += ms

    def _election(self) -> Election:
        return Election(self.now_ms, self.clock_ms, self._chain.elect, self._chain.watched)


def _event_line(key: str, kind: str, data: Any) -> str:
    if isinstance(data, wire.CommandRejected):
        return f"rejected {data.code}"
    if isinstance(data, wire.WorkerEvent | wire.QueueEvent):
        return f"{kind} {key}"
    if isinstance(data, wire.JobEvent):
        return _job_line(f"{name_of(key)}{data.version}", kind, data)
    if isinstance(data, wire.ParentSought):
        return f"{name_of(data.parent)} is sought"
    bulk = [kind, name_of(key), getattr(data, "outcome", None), getattr(data, "sent", None)]
    return " ".join(str(one) for one in bulk if one is not None)


def _job_line(name: str, kind: str, data: wire.JobEvent) -> str:
    if kind == "job.parameter_set":
        return f"{name} parameter {data.name}={bytes(data.value).decode()}"
    if kind == "job.priority_set":
        return f"{name} priority {data.priority}"
    if kind == "job.moved":
        return f"{name} moved to {data.queue}"
    said = [name, data.state, "traversed" if data.traversed else ""]
    said += [f"#{data.attempt} by {data.worker}" if data.state is State.PROCESSING else ""]
    said += [f"{label} {count}" for label, count in (("retry", data.retry), ("lost", data.lost)) if count]
    return " ".join(filter(None, said))


def _assignment_line(worker: str, said: wire.AnyAssignment) -> str:
    if isinstance(said, wire.OrderWorker):
        return f"{worker}: {said.reason}"
    if isinstance(said, wire.ServeQueue):
        return f"{worker}: serve {said.queue} in lane {said.lane}"
    verb = "run" if isinstance(said, wire.RunJob) else "cancel"
    return f"{worker}: {verb} {name_of(said.job_id)}, lease {said.lease}"


def _report_line(report: wire.AnyReport) -> str:
    if isinstance(report, wire.ContinuationAdded):
        return f"{name_of(report.child)} waits for {name_of(report.job_id)} {report.on}"
    if isinstance(report, wire.QueueElsewhere):
        return f"{report.queue} has jobs in lane {report.lane}"
    assert isinstance(report, wire.ParentEnded)
    ending = f"{name_of(report.parent)} is {report.state or 'unknown'}"
    return f"{name_of(report.job_id)} {'runs' if report.run else 'does not run'}, {ending}"
