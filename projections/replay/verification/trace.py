"""What verification keeps of a job: a few hundred bytes, made from any run of its events, and joined like folds.

A trace has the fields that the job's row must have, as short digests where they are long, and a step of fixed size
for each event, in the order of the log. Ten million jobs do not fit into memory, but their traces fit on a disk.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from struct import Struct as Format
from typing import Final, NamedTuple
from zlib import crc32

from joblog.projections.projector.decode import STATES, JobFact
from joblog.projections.projector.event_batch import ENDS, Record, kept
from joblog.projections.projector.fold import JobRow, begins, priority_of
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import EMPTY_OBJECT
from msgspec import Struct, structs

#: The types of job events; a step names one by its place.
KINDS: Final = tuple(STATES)
_PLACES: Final = {kind: place for place, kind in enumerate(KINDS)}

#: Those after which the job's state is as before.
NO_TRANSITIONS: Final = frozenset(kind for kind, state in STATES.items() if state is None)

BEGINS: Final = 1
TRAVERSED: Final = 2
COMMANDED: Final = 4

#: The hour has a sign: an event may bear a time before 1970.
_pack: Final = Format(">HqIBBIIi8s").pack
#: The fields of all steps; a digest is read as a number.
unpacked: Final = Format(">HqIBBIIiq").iter_unpack
#: A version or a lease may be greater than the tables, and a step, can hold; such an event is parked.
_GREATEST: Final = 2**32 - 1
_CAUSE: Final = b'"causationid":"'
#: What a lane calls the causes that are no commands (elector/turn.py, lane/pipeline.py).
_NO_COMMANDS: Final = (b"reports/", b"overdue/")


class Step(NamedTuple):
    """One event: where it lies, what it is, when it happened (hours since 1970), and a digest of what is kept of it.

    The digest is of the version, too. `lease` is 0 where the event has none; `twin` is a checksum of the whole record
    for first events, else 0.
    """

    lane: int
    offset: int
    version: int
    kind: int
    flags: int
    lease: int
    twin: int
    hour: int
    digest: int

    @property
    def type(self) -> str:
        return KINDS[self.kind]

    @property
    def begins(self) -> bool:
        """Whether a life of the job begins here."""
        return bool(self.flags & BEGINS)

    @property
    def traversed(self) -> bool:
        return bool(self.flags & TRAVERSED)

    @property
    def commanded(self) -> bool:
        """Whether a command led to it, and not a report or the passing of time."""
        return bool(self.flags & COMMANDED)

    @property
    def is_end(self) -> bool:
        return self.type in ENDS and not self.traversed


class Trace(Struct, array_like=True, gc=False):
    """A run of a job's events; what is None was not said in it.

    - key: the id as sixteen bytes, by which traces are sorted. steps: all events, also of earlier lives.
    - begins: whether the last life began in this run. first_version: of the last life, or of the run.
    - parents, parents_on: of a job that waits for several.
    - spec, exception_message: digests. parameters: those that the job was created with. set: those set since.
    """

    key: bytes
    lane: int
    begins: bool
    first_version: int
    steps: bytes
    offset: int
    version: int
    attempt: int
    state: State
    queue: str
    task: str
    created_at: str
    changed_at: str
    state_version: int | None = None
    lease: int | None = None
    due: str | None = None
    worker: str | None = None
    retry: int | None = None
    priority: int | None = None
    spec: bytes | None = None
    parent: str | None = None
    on: str | None = None
    exception_type: str | None = None
    exception_message: bytes | None = None
    parameters: bytes | None = None
    set: dict[str, bytes] | None = None
    parents: tuple[str, ...] | None = None
    parents_on: str | None = None

    @property
    def waits(self) -> dict[str, str]:
        """For which end of which jobs this one waits, or waited."""
        if self.parents is not None and self.parents_on is not None:
            return dict.fromkeys(self.parents, self.parents_on)
        return {self.parent: self.on} if self.parent is not None and self.on is not None else {}


def short(data: bytes) -> bytes:
    """The first eight bytes of SHA-256, which Postgres can compute, too."""
    return sha256(data).digest()[:8]


@lru_cache(maxsize=1024)
def _hours(hour: str) -> int:
    """The hours since 1970, of the first letters of an RFC 3339 time in UTC."""
    return int(datetime.fromisoformat(f"{hour}:00:00+00:00").timestamp()) // 3600


def step_of(record: Record, fact: JobFact) -> bytes:
    """The step of one event."""
    event, value = fact.event, record.value or b""
    flags = (BEGINS if begins(fact) else 0) | (TRAVERSED if event.traversed else 0)
    place = value.find(_CAUSE, 0, 600)
    if place > 0 and not value.startswith(_NO_COMMANDS, place + len(_CAUSE)):
        flags |= COMMANDED
    return _pack(
        record.lane,
        record.offset,
        min(event.version, _GREATEST),
        _PLACES[fact.type],
        flags,
        min(event.lease or 0, _GREATEST),
        crc32(value) if flags & BEGINS else 0,
        _hours(fact.at[:13]),
        short(b"%d" % event.version + kept(record, fact)),
    )


def steps_of(trace: Trace) -> Iterator[Step]:
    """The steps of a trace."""
    return (Step(*fields) for fields in unpacked(trace.steps))


def trace_of(row: JobRow, steps: bytes, *, begins: bool) -> Trace:
    """The trace of a fold and the steps of its events; `begins`: a life began among them."""
    latest, current, created, exception = row.latest, row.current, row.created_with, row.exception
    return Trace(
        row.key,
        row.lane,
        begins,
        row.first_version,
        steps,
        row.offset,
        latest.version,
        latest.attempt,
        latest.state,
        latest.queue,
        latest.task,
        row.created_at,
        row.changed_at,
        current.version if current else None,
        current.lease if current else None,
        row.due,
        current.worker if current else None,
        row.retry,
        priority_of(row),
        short(bytes(row.spec)) if row.spec is not None else None,
        row.parent,
        row.on,
        exception.type if exception else None,
        short(exception.message.encode()) if exception else None,
        bytes(created.parameters) if created and created.parameters is not EMPTY_OBJECT else None,
        {name: bytes(value) for name, value in row.parameters.items()} if row.parameters else None,
        created.parents.job_ids if created and created.parents else None,
        created.parents.on if created and created.parents else None,
    )


#: What a later run says anew if it has a transition, and what it says only if it says it.
_MOVED: Final = ("changed_at", "state_version", "lease", "due", "worker")
_LATEST: Final = ("offset", "version", "attempt", "state", "queue", "task")
_KEPT: Final = ("retry", "priority", "spec", "parameters", "parents", "parents_on")


def joined(first: Trace, rest: Trace) -> Trace:
    """The trace of the events of `first` and then those of `rest`, of the same job."""
    steps = first.steps + rest.steps
    if rest.begins:
        return structs.replace(rest, steps=steps)
    if rest.version <= first.version:
        return structs.replace(first, steps=steps)
    said = {name: getattr(rest, name) for name in _LATEST}
    if rest.state_version is not None:
        said |= {name: getattr(rest, name) for name in _MOVED}
    said |= {name: getattr(rest, name) for name in _KEPT if getattr(rest, name) is not None}
    if rest.parent is not None:
        said |= {"parent": rest.parent, "on": rest.on}
    if rest.exception_type is not None:
        said |= {"exception_type": rest.exception_type, "exception_message": rest.exception_message}
    if rest.set is not None:
        said["set"] = {**(first.set or {}), **rest.set}
    return structs.replace(first, steps=steps, **said)
