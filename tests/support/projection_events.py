"""Events in the contract's form, as an elector would write them: one story for each job."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from joblog.projections.projector.event_batch import Record
from joblog.streams.contract.ids import lane_of_job, new_job_id

BEGINNING = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
WORKER = "host-1:4711"
ERROR = {"type": "builtins.ValueError", "message": "no such row", "details": "Traceback ...", "types": ["ValueError"]}


def cloud_event(kind: str, subject: str | None, at: datetime, data: dict[str, Any]) -> bytes:
    envelope = {
        "specversion": "1.0",
        "id": f"{subject}-{data.get('version', 0)}",
        "source": "/joblog/lanes/0",
        "type": kind,
        "subject": subject,
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(envelope, separators=(",", ":")).encode()


@dataclass
class Story:
    """A job's events, each a second after the one before; every method adds one."""

    lane: int = 0
    queue: str = "default"
    task: str = "demo.add"
    at: datetime = BEGINNING
    random: int = 0
    spec: dict[str, Any] = field(default_factory=lambda: {"args": [1, 2], "kwargs": {"unit": "m"}})
    values: list[bytes] = field(default_factory=list)
    version: int = 0
    attempt: int = 0
    state: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        self.id = self.id or new_job_id(self.lane, int(self.at.timestamp() * 1000), self.random or None)

    def event(self, kind: str, state: str, **data: Any) -> Self:
        self.version += 1
        self.state = state
        self.at += timedelta(seconds=1)
        common = {"version": self.version, "state": state, "attempt": self.attempt, "queue": self.queue}
        first = {"spec": self.spec} if self.version == 1 else {}
        whole = {**common, "task": self.task, **first, **data}
        self.values.append(cloud_event(kind, self.id, self.at, whole))
        return self

    def enqueued(self, **data: Any) -> Self:
        return self.event("job.enqueued", "Enqueued", **data)

    def created_again(self, **changes: Any) -> Self:
        """What follows is another life under the same id."""
        self.version = self.attempt = 0
        for name, value in changes.items():
            setattr(self, name, value)
        return self

    def scheduled(self, due: datetime, **data: Any) -> Self:
        return self.event("job.scheduled", "Scheduled", due=due.isoformat(), **data)

    def awaiting(self, parent: str, on: str = "succeeded", **data: Any) -> Self:
        return self.event("job.awaiting", "Awaiting", parent=parent, on=on, **data)

    def processing(self, worker: str = WORKER, **data: Any) -> Self:
        self.attempt += 1
        return self.event("job.processing", "Processing", worker=worker, lease=self.version + 1, **data)

    def succeeded(self, result: Any = None, **data: Any) -> Self:
        run = {"worker": WORKER, "lease": self.version, "duration_ms": 12.5, "latency_ms": 3.0}
        return self.event("job.succeeded", "Succeeded", **run, result=result, **data)

    def failed(self, *, traversed: bool = False, **data: Any) -> Self:
        run = {"worker": WORKER, "lease": self.version, "duration_ms": 7.0, "latency_ms": 1.0}
        return self.event("job.failed", "Failed", **{"exception": ERROR, **run, "traversed": traversed, **data})

    def deleted(self, **data: Any) -> Self:
        return self.event("job.deleted", "Deleted", **data)

    def parameter_set(self, name: str, value: Any) -> Self:
        return self.event("job.parameter_set", self.state, name=name, value=value)

    def priority_set(self, priority: int) -> Self:
        return self.event("job.priority_set", self.state, note="priority_set", priority=priority)

    def moved(self, queue: str) -> Self:
        self.queue = queue
        return self.event("job.moved", self.state, note="moved")


def queue_event(kind: str, queue: str = "default", at: datetime = BEGINNING, **data: Any) -> bytes:
    return cloud_event(kind, queue, at, {"queue": queue, **data})


def bulk_events(operation: str, at: datetime = BEGINNING) -> list[bytes]:
    """An operation that begins, advances and ends."""
    one = {"operation": operation}
    said = {"action": "requeue", "filter": {"task": "t", "q": "1e5"}, "fence": [5, 6, 7], "matched": 9, "rate": 2.5}
    return [
        cloud_event("bulk.started", operation, at, {**one, **said, "by": "ann", "reason": "r", "queue": "slow"}),
        cloud_event("bulk.advanced", operation, at, {**one, "sent": 4, "cursor": operation}),
        cloud_event("bulk.ended", operation, at, {**one, "sent": 9, "outcome": "cancelled", "by": "bob"}),
    ]


def worker_event(kind: str, worker: str = WORKER, at: datetime = BEGINNING, **data: Any) -> bytes:
    face = {"worker": worker, "queues": ["default"], "slots": 4, "tasks": ["demo.add"], "host": "host-1", "pid": 4711}
    return cloud_event(kind, worker, at, {**face, "started_at": BEGINNING.isoformat(), **data})


def rejected_event(at: datetime = BEGINNING, **data: Any) -> bytes:
    why = {"code": "unknown_job", "reason": "there is no such job", "command": "job.delete"}
    return cloud_event("command.rejected", None, at, {**why, **data})


def sought_event(parent: str, until: datetime, question: str = "reports/0@7") -> bytes:
    """A lane asks how a job ended that it does not know."""
    return cloud_event(
        "parent.sought", parent, BEGINNING, {"parent": parent, "question": question, "until": until.isoformat()}
    )


def records(*stories: Story, first_offset: int = 0) -> list[Record]:
    """The stories' events as records of their lanes, one story after the other."""
    return placed([(lane_of_job(story.id), value) for story in stories for value in story.values], first_offset)


def placed(values: Iterable[tuple[int, bytes | None]], first_offset: int = 0) -> list[Record]:
    """Values with their lanes as records, each lane counted from `first_offset`."""
    following: dict[int, int] = {}
    made = []
    for lane, value in values:
        offset = following.get(lane, first_offset)
        following[lane] = offset + 1
        made.append(Record(lane, offset, int(BEGINNING.timestamp() * 1000) + offset, value))
    return made


@dataclass
class BatchStory(Story):
    """A batch's events."""

    def told(self, kind: str, state: str, **data: Any) -> Self:
        self.version += 1
        self.at += timedelta(seconds=1)
        counts = {"total": 0, "created": 0, "succeeded": 0, "failed": 0, "deleted": 0}
        whole = {"version": self.version, "state": state, "created_at": BEGINNING.isoformat(), **counts, **data}
        self.values.append(cloud_event(kind, self.id, self.at, whole))
        return self
