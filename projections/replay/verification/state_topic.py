"""The electors' topic `state`, as far as the events tell what it must say: jobs, and who waits for them.

Records are read in any order of their keys, and the last of each key counts. They go into sorted files: of jobs,
of the waits for parents that nobody has created yet.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from joblog.projections.projector.fold import job_key
from joblog.projections.replay.sorted_runs import Collected, SortedRuns
from joblog.projections.replay.verification.audit import job_of
from joblog.projections.replay.verification.findings import Finding, Kind
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import State
from joblog.streams.elector.lane_records import OWN_KEYS, read_state
from joblog.streams.kafka.scan import Ranges, TopicReader
from joblog.streams.lane.features.catalog import DECODERS
from joblog.streams.lane.features.more_continuations import PENDING_KEY
from joblog.streams.lane.job import Job
from msgspec import Struct

#: Jobs, and bytes of their specs, that are kept in memory before a run is written.
ENTRIES_MAX: Final = 100_000
BYTES_MAX: Final = 64 * 1024 * 1024

#: A job that waits, and for which end of its parent.
Waiting = tuple[str, str]


class Entry(Struct, array_like=True, gc=False):
    """The record of a job in `state`, as far as its events tell it; `state` is None for a tombstone.

    - spec, parameters: JSON, as they are there; continuations: the jobs that wait for this one.
    """

    lane: int
    state: State | None = None
    version: int = 0
    attempt: int = 0
    queue: str = ""
    task: str = ""
    worker: str | None = None
    lease: int = 0
    due_ms: int = 0
    priority: int = 0
    spec: bytes = b""
    parameters: bytes = b"{}"
    continuations: tuple[Waiting, ...] = ()


class Listed(Struct, array_like=True, gc=False):
    """That the lane of `parent` knows of a job which waits for it."""

    parent: str
    on: str


class StateRecords:
    """What `state` says, in files: jobs by id, and the waits for parents that are not there yet, by parent."""

    def __init__(self, directory: Path) -> None:
        self.jobs = SortedRuns(directory, "state", Entry)
        self._pending = SortedRuns(directory, "state-pending", list[Waiting])
        self._listed = Collected(SortedRuns(directory, "state-listed", list[Listed]))
        #: Parents of so many that some have records of their own, and are not looked at here.
        self.crowded: set[bytes] = set()
        self.unreadable: list[Finding] = []
        self._entries: dict[bytes, Entry] = {}
        self._waits: dict[bytes, list[Waiting]] = {}
        self._bytes = 0

    def read(self, reader: TopicReader, ranges: Ranges) -> Iterator[int]:
        """Read the records, the last of each key counts; yields how many were read."""
        for messages in reader.read(ranges):
            for message in messages:
                key, lane = (message.key() or b"").decode(errors="replace"), message.partition()
                assert lane is not None
                try:
                    self._take(key, lane, message.value())
                except Exception as error:  # noqa: BLE001 - whatever is wrong with the record is the finding
                    self.unreadable.append(_unreadable(key, lane, f"its record cannot be read: {error!s:.300}"))
            if len(self._entries) >= ENTRIES_MAX or self._bytes >= BYTES_MAX:
                self._write()
            yield len(messages)
        self._write()

    def pending(self) -> Iterator[tuple[bytes, list[Waiting]]]:
        """The waits for parents that are not there yet, by parent."""
        return ((key, runs[-1]) for key, runs in self._pending.merged())

    def listed(self) -> Iterator[tuple[bytes, list[Listed]]]:
        """The jobs that are known to wait, in the order of their ids, each with what it is said to wait for."""
        for key, runs in self.jobs.merged():
            self._list(key, runs[-1].continuations)
        for key, waits in self.pending():
            self._list(key, waits)
        return self._listed.merged()

    def _list(self, parent: bytes, waits: Iterable[Waiting]) -> None:
        for child, on in waits:
            self._listed.add(job_key(child), Listed(job_of(parent), on))
        self._listed.spill()

    def _take(self, key: str, lane: int, value: bytes | None) -> None:
        if key.startswith(PENDING_KEY):
            parent, more, _ = key.removeprefix(PENDING_KEY).partition("/")
            waits = DECODERS[PENDING_KEY](value) if value is not None else ()
            if more:
                self.crowded.add(job_key(parent))
            else:
                self._waits[job_key(parent)] = [(link.child, link.on) for link in waits]
        elif key not in OWN_KEYS and not any(key.startswith(prefix) for prefix in DECODERS):
            entry = self._entries[job_key(key)] = _entry(key, lane, value)
            self._bytes += len(entry.spec)

    def _write(self) -> None:
        if self._entries:
            self.jobs.write(self._entries.items())
        if self._waits:
            self._pending.write(self._waits.items())
        self._entries, self._waits, self._bytes = {}, {}, 0


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
    return Entry(
        lane,
        job.state,
        job.version,
        job.attempt,
        job.queue,
        job.task,
        job.worker,
        job.lease,
        job.due_ms if job.state is State.SCHEDULED else 0,
        job.priority,
        job.spec,
        job.parameters,
        tuple((child, str(on)) for child, on in job.continuations),
    )


def _unreadable(key: str, lane: int, what: str) -> Finding:
    return Finding(kind=Kind.STATE, lane=lane, job=key, what=f"state: {what}")
