"""The electors' topic `state` as it is between two looks at the log, and whether it fits the events.

An elector writes a job's events and its record in one transaction. So of a job that had no event between both
looks, the record must say what the events say; of another, it must be one of the versions between them.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from joblog.projections.replay.audit import job_of
from joblog.projections.replay.findings import Finding, Kind
from joblog.projections.replay.sorted_runs import SortedRuns
from joblog.projections.replay.trace import Step, Trace, steps_of
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.contract.timestamps import parse_time_ms
from joblog.streams.elector.lane_records import OWN_KEYS, read_state
from joblog.streams.kafka.scan import Ranges, TopicReader
from joblog.streams.lane.features.catalog import DECODERS
from joblog.streams.lane.job import Job
from msgspec import Struct

ENTRIES_MAX: Final = 100_000


class Entry(Struct, array_like=True, gc=False):
    """The record of a job in `state`, as far as its events tell it; `state` is None for a tombstone."""

    lane: int
    state: State | None = None
    version: int = 0
    attempt: int = 0
    queue: str = ""
    task: str = ""
    worker: str | None = None
    lease: int = 0
    due_ms: int = 0

    def shown(self) -> dict[str, object]:
        """What it says of the job, but for its lane."""
        return {name: getattr(self, name) for name in _COMPARED}


_COMPARED: Final = ("state", "version", "attempt", "queue", "task", "worker", "lease", "due_ms")


def read_entries(reader: TopicReader, ranges: Ranges, runs: SortedRuns[Entry], found: list[Finding]) -> Iterator[int]:
    """Write the records of jobs into runs, the last of each key; yields how many were read. Adds to `found`."""
    entries: dict[bytes, Entry] = {}
    for messages in reader.read(ranges):
        for message in messages:
            key, lane = (message.key() or b"").decode(errors="replace"), message.partition()
            assert lane is not None
            if key in OWN_KEYS or any(key.startswith(prefix) for prefix in DECODERS):
                continue
            try:
                entry = _entry(key, lane, message.value())
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the record is the finding
                found.append(_unreadable(key, lane, f"its record cannot be read: {error!s:.300}"))
                continue
            entries[bytes.fromhex(key.replace("-", ""))] = entry
        if len(entries) >= ENTRIES_MAX:
            runs.write(entries.items())
            entries = {}
        yield len(messages)
    if entries:
        runs.write(entries.items())


def _entry(key: str, lane: int, value: bytes | None) -> Entry:
    if lane_of_job(key) != lane:
        raise ValueError(f"it is of lane {lane_of_job(key)}")
    if value is None:
        return Entry(lane)
    job = read_state(key, value)
    if not isinstance(job, Job):
        raise TypeError("it is no job")
    if job.id != key:
        raise ValueError(f"it is about job {job.id}")
    due = job.due_ms if job.state is State.SCHEDULED else 0
    return Entry(lane, job.state, job.version, job.attempt, job.queue, job.task, job.worker, job.lease, due)


def _unreadable(key: str, lane: int, what: str) -> Finding:
    return Finding(kind=Kind.STATE, lane=lane, job=key, what=f"state: {what}")


def state_finding(key: bytes, trace: Trace | None, entry: Entry | None, looked: dict[int, int]) -> Finding | None:
    """What is wrong with a job's record; `looked` says how far each lane's events were before `state` was read."""
    if entry is not None and entry.state is None:
        entry = None
    if trace is None:
        return None if entry is None else _finding(key, entry.lane, "is in state, not in the log", None, entry)
    last = list(steps_of(trace))
    since = [step for step in last if step.offset >= looked.get(step.lane, 0)]
    if since:
        return _moved(key, trace, entry, last, since)
    wanted = expected_entry(trace)
    what = _differs(wanted, entry)
    return None if what is None else _finding(key, trace.lane, what, wanted, entry)


def _differs(wanted: Entry, entry: Entry | None) -> str | None:
    """What is wrong with the record of a job that did not move meanwhile. Failed jobs are kept for a while."""
    has_ended = wanted.state in FINAL_STATES
    if entry is None:
        return None if has_ended else f"is {wanted.state}, and not in state"
    if has_ended and wanted.state is not State.FAILED:
        return f"is {wanted.state}, and still in state"
    differing = [name for name in _COMPARED if getattr(entry, name) != getattr(wanted, name)]
    return f"{', '.join(differing)} in state: not as the log says" if differing else None


def expected_entry(trace: Trace) -> Entry:
    """What a job's record must say after these events."""
    runs = trace.state is State.PROCESSING
    due = parse_time_ms(trace.due) if trace.state is State.SCHEDULED and trace.due else 0
    return Entry(
        trace.lane,
        trace.state,
        trace.version,
        trace.attempt,
        trace.queue,
        trace.task,
        trace.worker if runs else None,
        (trace.lease or 0) if runs else 0,
        due,
    )


def _moved(
    key: bytes, trace: Trace, entry: Entry | None, steps: Sequence[Step], since: Sequence[Step]
) -> Finding | None:
    """A job that had events while `state` was read: its record may be of any of these versions."""
    before = [step for step in steps if step.offset < since[0].offset]
    possible = [*before[-1:], *since]
    if entry is None:
        is_possible = not before or any(step.is_end for step in possible)
    else:
        is_possible = entry.version in {step.version for step in possible}
    if is_possible:
        return None
    return _finding(key, trace.lane, "is moving, and state has none of its versions", expected_entry(trace), entry)


def _finding(key: bytes, lane: int, what: str, wanted: Entry | None, entry: Entry | None) -> Finding:
    job = job_of(key)
    return Finding(
        kind=Kind.STATE,
        lane=lane,
        job=job,
        what=f"job {job} {what}",
        log=wanted.shown() if wanted else None,
        found=entry.shown() if entry else None,
    )
