"""Rows as blocks of COPY's binary format, which costs the server a third less than text. Pure.

A row is the number of its fields, and each field its length and its value, big-endian; a length of -1 is null.
Source: PostgreSQL's documentation, COPY, "Binary Format"; values are what the `*send` functions of the types write.

Every job passes here, so what belongs together is packed at once, and what is usual has its own way.

Raises struct.error for a number that its column cannot hold, and UnicodeEncodeError for a text that is none in
UTF-8; whatever else a column cannot hold, the server refuses.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from struct import Struct
from typing import Final

from joblog.projections.projector.decode import PLAIN
from joblog.projections.projector.fold import JobRow, job_key, priority_of
from joblog.projections.projector.rows import defaults
from joblog.streams.contract.json_text import merged
from joblog.streams.contract.states import State
from msgspec import json

HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER: Final = b"\xff\xff"

#: So many rows are handed on at once.
ROWS_MAX: Final = 200

_NULL: Final = b"\xff\xff\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: The version in front of a value of jsonb.
_JSONB: Final = b"\x01"
_TEXT_OID: Final = 25

_encode: Final = json.Encoder().encode
_length: Final = Struct(">i").pack
_int4: Final = Struct(">ii").pack
_int8: Final = Struct(">iq").pack
_zero: Final = _int4(4, 0)
#: The number of fields, id, created_at, changed_at, log_offset, version, attempt, lane.
_new: Final = Struct(">hi16si8si8siqiiiiih").pack
_NEW_FIELDS: Final = 22
#: The number of fields, id, changed_at, first_offset, log_offset, first_version, version, attempt, state_version.
_moved: Final = Struct(">hi16si8siqiqiiiiiiii").pack
_MOVED_FIELDS: Final = 13
#: The same, with log_ms, created_at and lane.
_changed: Final = Struct(">hi16si8siqiqiiiiiiiqi8sih").pack
_CHANGED_FIELDS: Final = 26
#: The number of fields, job, version, last_version, and of the array: size, dimensions, nulls, type, length, base.
_run: Final = Struct(">hi16siiiiiiiiii").pack
_ARRAY_HEAD_BYTES: Final = 20


def blocks_of(rows: Collection[JobRow]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """What each statement of COPY takes: jobs that the tables do not hold, those that they do, and the events of all.

    Of the second kind, those to which something unusual happened are apart.
    """
    kinds: dict[str, list[JobRow]] = {name: [] for name in _ROWS}
    for row in rows:
        kinds[_kind(row)].append(row)
    for name, some in {**kinds, "copy_new_history": rows}.items():
        if some:
            yield name, _block(map(_ROWS.get(name, _history), some))


def _block(rows: Iterator[bytes]) -> Iterator[bytes]:
    """In parts that fit into the processor's cache."""
    yield HEADER
    while part := b"".join(islice(rows, ROWS_MAX)):
        yield part
    yield TRAILER


def _kind(row: JobRow) -> str:
    """The statement for a job: another one if more happened to it than to be assigned, succeed or be deleted."""
    if row.first_version == 1:
        return "copy_new_jobs"
    is_usual = row.current is not None and row.retry is None and row.created_with is None and not _is_rare(row)
    return "copy_moved_jobs" if is_usual else "copy_changed_jobs"


def _is_rare(row: JobRow) -> bool:
    """Whether it has what `_rare` packs, or parameters or a priority that were set."""
    return not (
        row.due is None
        and row.parent is None
        and row.exception is None
        and row.parameters is None
        and row.priority is None
    )


def _new_job(row: JobRow) -> bytes:
    """A row of `jobs` for a job that was seen from its first event on; in the order of `copy_new_jobs`."""
    latest, created = row.latest, row.created_with
    head = _new(
        _NEW_FIELDS,
        16,
        row.key,
        8,
        _instant(row.created_at),
        8,
        _instant(row.changed_at),
        8,
        row.offset,
        4,
        latest.version,
        4,
        latest.attempt,
        2,
        row.lane,
    )
    head += _place(latest.state, latest.queue, latest.task) + _run_of(row)
    spec = _NULL if row.spec is None else _bytes(bytes(row.spec))
    if created is PLAIN and not row.retry and not _is_rare(row):
        return head + _PLAIN_REST + spec
    return b"".join(
        (
            head,
            _zero if row.retry is None else _number(row.retry),
            _number(priority_of(row) or 0),
            _rare(row),
            _NULL if (parameters := _new_parameters(row)) is None else _jsonb(parameters),
            spec,
        )
    )


#: What stands before the spec of most new jobs: neither retry nor priority, nothing of `_rare`, no parameters.
_PLAIN_REST: Final = _zero * 2 + _NULL * 6


def _moved_job(row: JobRow) -> bytes:
    """A row of `staged_moves` in the order of `copy_moved_jobs`."""
    latest, current = row.latest, row.current
    assert current is not None
    return (
        _moved(
            _MOVED_FIELDS,
            16,
            row.key,
            8,
            _instant(row.changed_at),
            8,
            row.first_offset,
            8,
            row.offset,
            4,
            row.first_version,
            4,
            latest.version,
            4,
            latest.attempt,
            4,
            current.version,
        )
        + _place(latest.state, latest.queue, latest.task)
        + (_NULL if current.lease is None else _int4(4, current.lease))
        + (_NULL if current.worker is None else _name(current.worker))
    )


def _changed_job(row: JobRow) -> bytes:
    """A row of `staged_jobs` in the order of `copy_changed_jobs`."""
    latest, first = row.latest, defaults(row)
    head = _changed(
        _CHANGED_FIELDS,
        16,
        row.key,
        8,
        _instant(row.changed_at),
        8,
        row.first_offset,
        8,
        row.offset,
        4,
        row.first_version,
        4,
        latest.version,
        4,
        latest.attempt,
        8,
        row.log_ms,
        8,
        _instant(row.created_at),
        2,
        row.lane,
    )
    return b"".join(
        (
            head,
            _place(latest.state, latest.queue, latest.task),
            _run_of(row),
            _NULL if row.retry is None else _number(row.retry),
            _NULL if (priority := priority_of(row)) is None else _number(priority),
            _rare(row),
            _NULL if first is None else _jsonb(first.encode()),
            _NULL if row.parameters is None else _jsonb(_encode(row.parameters)),
            _NULL if row.spec is None else _bytes(bytes(row.spec)),
        )
    )


_ROWS: Final[Mapping[str, Callable[[JobRow], bytes]]] = {
    "copy_new_jobs": _new_job,
    "copy_moved_jobs": _moved_job,
    "copy_changed_jobs": _changed_job,
}


def _history(row: JobRow) -> bytes:
    """Rows of `history`, in the order of `copy_new_history`."""
    if not row.runs:
        return _history_run(row.key, row.first_version, row.count, row.events)
    parts, first = [], row.first_version
    for count, events in (*row.runs, (row.count, row.events)):
        parts.append(_history_run(row.key, first, count, events))
        first += count
    return b"".join(parts)


def _history_run(key: bytes, first: int, count: int, events: bytes) -> bytes:
    size = _ARRAY_HEAD_BYTES + len(events)
    return _run(4, 16, key, 4, first, 4, first + count - 1, size, 1, 0, _TEXT_OID, count, 1) + events


def _run_of(row: JobRow) -> bytes:
    """state_version, lease and worker."""
    if (current := row.current) is None:
        return _NULL * 3
    return (
        _number(current.version)
        + (_NULL if current.lease is None else _int4(4, current.lease))
        + (_NULL if current.worker is None else _name(current.worker))
    )


def _rare(row: JobRow) -> bytes:
    """due, parent, continue_on, exception_type and exception_message."""
    exception = row.exception
    if row.due is None and row.parent is None and exception is None:
        return _NULL * 5
    return b"".join(
        (
            _NULL if row.due is None else _bytes(_instant(row.due)),
            _NULL if row.parent is None else _bytes(job_key(row.parent)),
            _NULL if row.on is None else _name(row.on),
            _NULL * 2 if exception is None else _text(exception.type) + _text(exception.message),
        )
    )


def _new_parameters(row: JobRow) -> bytes | None:
    first = defaults(row)
    if row.parameters is None:
        return None if first is None else first.encode()
    return _encode(row.parameters) if first is None else merged(first.encode(), _encode(row.parameters))


@lru_cache(maxsize=8192)
def _instant(time: str) -> bytes:
    return _int8(8, (datetime.fromisoformat(time) - _EPOCH) // _MICROSECOND)[4:]


@lru_cache(maxsize=4096)
def _place(state: State, queue: str, task: str) -> bytes:
    return _text(state) + _text(queue) + _text(task)


@lru_cache(maxsize=4096)
def _name(text: str) -> bytes:
    """A text of which there are few: a worker's id, or when a continuation runs."""
    return _text(text)


@lru_cache(maxsize=4096)
def _number(value: int) -> bytes:
    """A number of which there are few."""
    return _int4(4, value)


def _text(text: str) -> bytes:
    return _bytes(text.encode())


def _bytes(value: bytes) -> bytes:
    return _length(len(value)) + value


def _jsonb(value: bytes) -> bytes:
    return _bytes(_JSONB + value)
