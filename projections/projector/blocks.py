"""Rows as blocks of COPY's binary format, which costs the server a third less than text. Pure.

A row is the number of its fields, and each field its length and its value, big-endian; a length of -1 is null. Source:
PostgreSQL's documentation, COPY, "Binary Format"; the values are what each type's `*send` function writes.

Raises struct.error for a number that its column cannot hold, and UnicodeEncodeError for a text that is none in
UTF-8; whatever else a column cannot hold, the server refuses.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from struct import Struct
from typing import Final

from joblog.projections.projector.decode import job_key
from joblog.projections.projector.fold import JobRow
from joblog.projections.projector.rows import defaults
from joblog.projections.schema.history import EVENTS_MAX
from joblog.streams.contract.json_text import merged
from msgspec import json

HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER: Final = b"\xff\xff"

_NULL: Final = b"\xff\xff\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: The version in front of a value of jsonb.
_JSONB: Final = b"\x01"
_TEXT_OID: Final = 25

_NEW_FIELDS: Final = 22
_MOVED_FIELDS: Final = 26
_length: Final = Struct(">i").pack
_int8_value: Final = Struct(">q").pack
_int4: Final = Struct(">ii").pack
_int8: Final = Struct(">iq").pack
#: The number of fields, id, log_offset, version, attempt, lane, created_at, changed_at.
_head: Final = Struct(">hi16siqiiiiihi8si8s").pack
#: The number of fields, job, version, last_version, and the array's length, dimensions, nulls, type, size, first index.
_run: Final = Struct(">hi16siiiiiiiiii").pack
_RUN_HEAD_BYTES: Final = 20


def blocks_of(new: Collection[JobRow], moved: Collection[JobRow]) -> dict[str, bytes]:
    """What each statement of COPY takes: jobs that the tables do not hold, and those that they do."""
    blocks = {}
    if new:
        blocks["copy_new_jobs"] = new_jobs(new)
    if moved:
        blocks["copy_moved_jobs"] = moved_jobs(moved)
    return {**blocks, "copy_new_history": history(chain(new, moved))} if blocks else {}


def new_jobs(rows: Iterable[JobRow]) -> bytes:
    """Rows of `jobs`, of jobs that were seen from their first event on; in the order of `copy_new_jobs`."""
    parts = [HEADER]
    for row in rows:
        _add_job(parts, row, _NEW_FIELDS, _zero, _new_parameters(row))
    parts.append(TRAILER)
    return b"".join(parts)


def moved_jobs(rows: Iterable[JobRow]) -> bytes:
    """Rows of `staged_jobs`, in the order of `copy_moved_jobs`."""
    parts = [HEADER]
    for row in rows:
        _add_job(parts, row, _MOVED_FIELDS, _NULL, row.parameters and _encode(row.parameters))
        first = defaults(row)
        parts += (
            _int8(8, row.first_offset),
            _int8(8, row.log_ms),
            _int4(4, row.first_version),
            _NULL if first is None else _jsonb(first.encode()),
        )
    parts.append(TRAILER)
    return b"".join(parts)


def history(rows: Iterable[JobRow]) -> bytes:
    """Rows of `history`, in the order of `copy_new_history`."""
    parts = [HEADER]
    for row in rows:
        events, key, first = row.events, job_key(row.id), row.first_version
        for start in range(0, len(events), EVENTS_MAX):
            run = events if len(events) <= EVENTS_MAX else events[start : start + EVENTS_MAX]
            count, version = len(run), first + start
            size = _RUN_HEAD_BYTES + 4 * count + sum(map(len, run))
            parts.append(_run(4, 16, key, 4, version, 4, version + count - 1, size, 1, 0, _TEXT_OID, count, 1))
            for event in run:
                parts += (_length(len(event)), event)
    parts.append(TRAILER)
    return b"".join(parts)


_encode: Final = json.Encoder().encode
_zero: Final = _int4(4, 0)


def _add_job(parts: list[bytes], row: JobRow, fields: int, without: bytes, parameters: bytes | None) -> None:
    """The fields that new and moved jobs share; `without` stands for a number that no event gave."""
    latest, current, created, exception = row.latest, row.current, row.created_with, row.exception
    parts.append(
        _head(
            fields,
            16,
            job_key(row.id),
            8,
            row.offset,
            4,
            latest.version,
            4,
            latest.attempt,
            2,
            row.lane,
            8,
            _instant(row.created_at),
            8,
            _instant(row.changed_at),
        )
    )
    parts += (_name(latest.state), _name(latest.queue), _name(latest.task))
    if current is None:
        parts += (_NULL, _NULL, _NULL)
    else:
        parts += (
            _int4(4, current.version),
            _NULL if current.lease is None else _int4(4, current.lease),
            _NULL if current.worker is None else _name(current.worker),
        )
    parts += (
        _NULL if row.due is None else _length(8) + _instant(row.due),
        without if row.retry is None else _int4(4, row.retry),
        _NULL if row.parent is None else _length(16) + job_key(row.parent),
        _NULL if row.on is None else _name(row.on),
        _NULL if exception is None else _text(exception.type),
        _NULL if exception is None else _text(exception.message),
        without if created is None else _int4(4, created.priority),
        _NULL if parameters is None else _jsonb(parameters),
        _NULL if row.spec is None else _bytes(bytes(row.spec)),
    )


def _new_parameters(row: JobRow) -> bytes | None:
    first = defaults(row)
    if row.parameters is None:
        return first and first.encode()
    return merged(first.encode(), _encode(row.parameters)) if first else _encode(row.parameters)


@lru_cache(maxsize=8192)
def _instant(time: str) -> bytes:
    return _int8_value((datetime.fromisoformat(time) - _EPOCH) // _MICROSECOND)


@lru_cache(maxsize=4096)
def _name(text: str) -> bytes:
    """A text of which there are few: of a state, queue, task or worker."""
    return _text(text)


def _text(text: str) -> bytes:
    return _bytes(text.encode())


def _bytes(value: bytes) -> bytes:
    return _length(len(value)) + value


def _jsonb(value: bytes) -> bytes:
    return _bytes(_JSONB + value)
