"""The rows of `rejected` and `parked`: what the log says that they must hold, beside what they hold. Pure.

A rejected command is an event, and its row says what that says. A record that cannot be read is parked with the
reason, and so is, as a remark, an event that came behind a gap in its job's versions. What Postgres has refused, or
what failed in a way that nobody foresaw, only the tables know: there must be such a record in the log.
"""

import heapq
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from joblog.projections.projector.decode import RejectedFact
from joblog.projections.projector.event_batch import Parked, Record, gap, parked
from joblog.projections.replay.verification.audit import job_of
from joblog.projections.replay.verification.findings import Finding, Kind, position
from joblog.projections.replay.verification.trace import Trace, short, steps_of
from joblog.streams.errors import ContractError, InternalError
from msgspec import Struct

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final[Mapping[str, Kind]] = {"parked": Kind.PARKED, "rejected": Kind.REJECTED}
_GAP: Final = "version_gap"


class Aside(Struct, array_like=True, gc=False):
    """A row of `table`, for the record at `offset` of `lane`: columns and values, but those that nobody can tell."""

    table: str
    lane: int
    offset: int
    says: dict[str, Any]

    @property
    def key(self) -> bytes:
        """By which rows are sorted: as the tables in the order of their names, each by lane and offset."""
        return self.table.encode() + self.lane.to_bytes(2, "big") + self.offset.to_bytes(8, "big")


def rejected_aside(record: Record, fact: RejectedFact) -> Aside:
    """The row of a rejected command."""
    event = fact.event
    says = {
        "at": instant(datetime.fromisoformat(fact.at)),
        "code": event.code,
        "reason": event.reason,
        "command": event.command,
        "command_id": event.command_id,
        "job": event.job_id,
        "position": event.position,
        "existing": event.existing,
    }
    return Aside("rejected", record.lane, record.offset, says)


def unreadable_aside(record: Record, error: Exception) -> Aside:
    """The row of a record that cannot be read; of an error that nobody foresaw the reason is a traceback."""
    if isinstance(error, ContractError) and not isinstance(error, InternalError):
        one = parked(record, error.code, error.reason)
        return _parked(one, code=one.code, reason=one.reason)
    return _parked(Parked(record, "", ""), code=InternalError.code)


def refused_aside(record: Record) -> Aside:
    """The row of a record that can be read, and that the tables do not have."""
    return _parked(Parked(record, "", ""))


def gaps(trace: Trace, returned: int | None = None) -> Iterator[Aside]:
    """The rows of a job's events that came behind a gap; their time is that of the record, which no trace has.

    - returned: the version with which the tables say that it came back after its row had expired: to them that was
      none, also if what was before could not be applied.
    """
    job, before = job_of(trace.key), 0
    for step in steps_of(trace):
        if step.begins:
            before = step.version
        elif step.version > before:
            if step.version > before + 1 and (before or step.version != returned):
                one = gap(Record(step.lane, step.offset, 0, None), job, before, step.version)
                says = {"code": one.code, "reason": one.reason, "raw": None}
                yield Aside("parked", step.lane, step.offset, says)
            before = step.version


def _parked(one: Parked, **says: Any) -> Aside:
    record = one.record
    raw = short(record.value).hex() if record.value is not None else None
    at = instant(_EPOCH + timedelta(milliseconds=record.log_ms))
    return Aside("parked", record.lane, record.offset, {"at": at, "raw": raw, **says})


def instant(at: datetime) -> str:
    """An instant as both sides write it."""
    return at.astimezone(UTC).isoformat()


def aside_findings(
    log: Iterator[tuple[bytes, list[Aside]]], tables: Iterator[Aside], begins: Mapping[int, int]
) -> Iterator[Finding]:
    """Where the rows are not what the log says; both sides are sorted by key.

    Where the log lacks its beginning it does not tell what was before, nor which gaps there were.
    """
    sides: list[Iterator[tuple[bytes, int, Aside]]] = [
        ((key, 0, one) for key, several in log for one in several),
        ((one.key, 1, one) for one in tables),
    ]
    for _key, rows in groupby(heapq.merge(*sides, key=itemgetter(0, 1)), key=itemgetter(0)):
        given = {side: one for _, side, one in rows}
        finding = _compared(given.get(0), given.get(1), begins)
        if finding is not None:
            yield finding


def _compared(log: Aside | None, row: Aside | None, begins: Mapping[int, int]) -> Finding | None:
    one = log or row
    assert one is not None
    begin = begins.get(one.lane, 0)
    is_gap = any(side is not None and side.says.get("code") == _GAP for side in (log, row))
    if begin and (is_gap or one.offset < begin):
        return None
    if row is None:
        return _finding(one, "is in the log, not in the tables", one.says, None)
    if log is None:
        return _finding(one, "is in the tables, not in the log", None, one.says)
    differing = [name for name, value in log.says.items() if row.says[name] != value]
    if not differing:
        return None
    found = {name: row.says[name] for name in differing}
    return _finding(one, f"{', '.join(differing)} differ from the log", {n: log.says[n] for n in differing}, found)


def _finding(one: Aside, what: str, log: Any, found: Any) -> Finding:
    where = position(one.lane, one.offset)
    job = one.says.get("job")
    said = f"{one.table} {where}: {what}"
    return Finding(kind=_KINDS[one.table], lane=one.lane, job=job, what=said, position=where, log=log, found=found)
