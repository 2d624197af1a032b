"""A job in each state, and its next event."""

from datetime import UTC, datetime
from typing import Any

from joblog.streams.contract import wire
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import JobEvent
from joblog.streams.lane.job import Job
from msgspec import Raw, json, structs

NOW = 1_800_000_000_000
NOW_TEXT = "2027-01-15T08:00:00.000Z"
LATER = datetime(2027, 1, 16, tzinfo=UTC)
LATER_MS, LATER_TEXT = 1_800_057_600_000, "2027-01-16T00:00:00.000Z"
ID, PARENT = "01a31bcf-c400-8000-8000-00000000002a", "01a31bcf-c400-8000-8000-00000000002b"
BOOM = wire.JobException("shop.Boom", "no", "trace", ("shop.Boom",))
SPEC = json.encode(wire.JobSpec(Raw(b"[1]")))


def in_state(state: State, **changes: Any) -> Job:
    """A job that ran once before, at version 5, in its third state since."""
    job = Job(ID, "q", "t", state, 5, 1, 0, NOW - 9_000, SPEC, ready_ms=NOW - 500, retries=2, lost=1)
    if state is State.PROCESSING:
        job.worker, job.lease = "w", 5
    elif state is State.SCHEDULED:
        job.due_ms = LATER_MS
    elif state is State.AWAITING:
        job.parent, job.on = PARENT, ContinueOn.SUCCEEDED
    return structs.replace(job, **changes)


def event(state: State, **fields: Any) -> JobEvent:
    """The sixth event of the job, as it is unless a field says otherwise."""
    return JobEvent(**{"version": 6, "state": state, "attempt": 1, "queue": "q", "task": "t", **fields})
