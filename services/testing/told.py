"""What the log has of each job, told as monitoring tells it: the same models, from a fold of the same events."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from joblog.projections.monitor.limits import Row, why
from joblog.projections.monitor.models import JobDetails, Rejected
from joblog.projections.monitor.rows import details, with_durations
from joblog.projections.projector.decode import ControlFact, JobFact, RejectedFact, read_event
from joblog.projections.projector.fold import begins, fold
from joblog.projections.replay.lives import expected_job
from joblog.projections.schema.history import written
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import format_time
from joblog.streams.lane.output import EventData

#: An event as lanes write it: key, type, event id, data, cause, traceparent.
LaneEvent = tuple[str, str, str, EventData, str | None, str | None]
_JSON: Final = "application/json"


class EventLog:
    """The events of all lanes.

    - enqueued: jobs that became ready, in this order; whoever looks for the next one takes them out.
    - listeners: called with the key and the value of each event.
    """

    def __init__(self, lanes: int) -> None:
        self._offsets = [0] * lanes
        self._jobs: dict[str, list[tuple[int, int, JobFact]]] = {}
        self._children: defaultdict[str, list[str]] = defaultdict(list)
        self.rejected: list[Rejected] = []
        self.enqueued: list[str] = []
        self.listeners: list[Callable[[str, bytes], object]] = []
        self._limits: dict[str, wire.LimitChanged] = {}
        self._now = datetime.now(UTC)

    def add(self, lane: int, event: LaneEvent, now_ms: int) -> None:
        """Keep an event, as those who read the log read it."""
        key, kind, event_id, data, cause, traceparent = event
        said = wire.CloudEvent(
            "1.0", event_id, f"/joblog/lanes/{lane}", kind, key, format_time(now_ms), _JSON, cause, traceparent, data
        )
        offset = self._offsets[lane]
        self._offsets[lane] = offset + 1
        value = encode(said)
        fact = read_event(value, None, now_ms)
        for listener in self.listeners:
            listener(key, value)
        self._now = datetime.fromtimestamp(now_ms / 1000, UTC)
        if isinstance(fact, JobFact):
            self._add_fact(lane, offset, fact)
        elif isinstance(fact, ControlFact) and isinstance(fact.event, wire.LimitChanged):
            self._limits[fact.event.key] = fact.event
        elif isinstance(fact, RejectedFact):
            said_of = fact.event
            self.rejected.append(
                Rejected(
                    lane=lane,
                    log_offset=offset,
                    at=datetime.fromtimestamp(now_ms / 1000, UTC),
                    code=said_of.code,
                    reason=said_of.reason,
                    command=said_of.command,
                    command_id=said_of.command_id,
                    job_id=said_of.job_id,
                    position=said_of.position,
                    existing=said_of.existing,
                )
            )

    def _add_fact(self, lane: int, offset: int, fact: JobFact) -> None:
        if begins(fact) or fact.job not in self._jobs:
            self._jobs.pop(fact.job, None)  # another life begins: the order is that of the last one
            self._jobs[fact.job] = []
        self._jobs[fact.job].append((lane, offset, fact))
        for parent in _parents(fact):
            if fact.job not in self._children[parent]:
                self._children[parent].append(fact.job)
        if fact.type == "job.enqueued":
            self.enqueued.append(fact.job)

    def ids(self) -> Iterator[str]:
        """All jobs, in the order of their creation."""
        return iter(self._jobs)

    def job(self, job_id: str) -> JobDetails | None:
        """A job with its history, newest first, as `Monitor.job` gives it; None if there is none."""
        if job_id not in self._jobs:
            return None
        life = self._jobs[job_id]
        row = self._row(job_id)
        events = with_durations([{"event": _kept(*one)} for one in reversed(life)])
        continuations = [self._row(child) for child in reversed(self._children.get(job_id, ()))]
        rejected = [one.model_dump() for one in reversed(self.rejected) if one.job_id == job_id]
        waits_for = why(self, row, events, self._now)
        return details(row, events, [_short(one) for one in continuations], rejected, waits_for)

    def holders(self, limits: Sequence[Row]) -> list[Row]:
        """The jobs that run with one of these limits, with its kind and key."""
        wanted = {(one["kind"], one["key"]) for one in limits}
        return [
            {"id": job_id, "kind": one["kind"], "key": one["key"]}
            for job_id in self._running()
            for one in (self._row(job_id)["spec"] or {}).get("limits", ())
            if (one["kind"], one["key"]) in wanted
        ]

    def queue_limit(self, queue: str) -> Row | None:
        """The limit of a queue, and how many of its jobs run."""
        limit = self._limits.get(queue)
        if limit is None or limit.capacity is None:
            return None
        running = sum(self._jobs[job_id][-1][2].event.queue == queue for job_id in self._running())
        return {"kind": limit.kind, "capacity": limit.capacity, "interval_s": limit.interval_s, "running": running}

    def started(self, queue: str, since: datetime, most: int) -> int:
        """How many of its jobs have started since then; no more than `most` are counted."""
        facts = (fact for life in self._jobs.values() for _, _, fact in life if fact.type == "job.processing")
        found = sum(fact.event.queue == queue and datetime.fromisoformat(fact.at) >= since for fact in facts)
        return min(found, most)

    def _running(self) -> Iterator[str]:
        """The jobs that run."""
        return (job_id for job_id, life in self._jobs.items() if life[-1][2].event.state is State.PROCESSING)

    def _row(self, job_id: str) -> dict[str, Any]:
        """What the statement `job` of the monitor gives."""
        life = self._jobs[job_id]
        folded = fold([(offset, fact) for _lane, offset, fact in life], life[0][0])
        assert folded.current is not None  # the first event is a transition
        row = expected_job(folded)
        current = life[folded.current.version - 1]
        parent = row["parent"]
        parent_state = self._jobs[parent][-1][2].event.state if parent in self._jobs else None
        return {**row, "event": _kept(*current), "parent_state": parent_state}


def _kept(lane: int, offset: int, fact: JobFact) -> bytes:
    return written(lane, offset, fact.at, fact.type, fact.data)


def _parents(fact: JobFact) -> tuple[str, ...]:
    """For whom a job waits, as its event says."""
    if fact.created_with is not None and fact.created_with.parents is not None:
        return fact.created_with.parents.job_ids
    return (fact.event.parent,) if fact.event.parent is not None else ()


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a continuation."""
    names = ("id", "state", "queue", "task", "created_at", "changed_at")
    on = row["continue_on"] or ((row["spec"] or {}).get("parents") or {}).get("on", "succeeded")
    return {"continue_on": on, **{name: row[name] for name in names}}
