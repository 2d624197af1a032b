"""What the tables say of bulk operations, and the jobs that one of them is to change."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from joblog.projections.monitor.job_filter import JobFilter
from joblog.projections.monitor.models import BulkOperation, Matched
from joblog.projections.monitor.reads import Reads
from joblog.projections.questions import InvalidQuestion, checked_limit
from joblog.projections.statements import load
from joblog.streams.contract.fields import match_job_id
from joblog.streams.contract.states import FINAL_STATES, State

_SQL: Final = load("monitor/monitor.sql")
#: The fields of a filter that operations take; `order` is of no effect on them.
_NAMES: Final = tuple(name for name in JobFilter.__slots__ if name != "order")
#: What a field may be, as JSON, if it is no text.
_KINDS: Final[Mapping[str, type]] = {"state": list, "retrying": bool}
_TIMES: Final = frozenset({"created_after", "created_before", "changed_after", "changed_before"})


class Found(NamedTuple):
    """A job that an operation is to change; `snapshot` is what revives it if it has ended, as commands.Snapshot."""

    id: str
    state: State
    version: int
    snapshot: dict[str, Any] | None


def filter_document(wanted: JobFilter) -> dict[str, Any]:
    """A filter as JSON, for the command that begins an operation; InvalidQuestion for one that finds nothing."""
    wanted.parameters()
    if wanted.order is not None:
        raise InvalidQuestion("an order has no effect on a bulk operation: leave it out")
    said = {name: value for name in _NAMES if (value := getattr(wanted, name))}
    if wanted.state is not None:  # no state at all is not any state
        said["state"] = [str(state) for state in wanted.states()]
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in said.items()}


def filter_of(document: Mapping[str, Any]) -> JobFilter:
    """The filter that `filter_document` has written; InvalidQuestion for anything else."""
    if unknown := document.keys() - set(_NAMES):
        raise InvalidQuestion(f"no filter has the field {sorted(unknown)[0]!r:.60}")
    for name, value in document.items():
        if not isinstance(value, _KINDS.get(name, str)):  # any client may have begun the operation
            raise InvalidQuestion(f"this is no filter: {name} cannot be {value!r:.60}")
    try:
        said: dict[str, Any] = {
            name: datetime.fromisoformat(value) if name in _TIMES else value for name, value in document.items()
        }
        if "state" in said:
            said["state"] = [State(one) for one in said["state"]]
        wanted = JobFilter(**said)
        wanted.parameters()
    except (TypeError, AttributeError, ValueError) as error:
        raise InvalidQuestion(f"this is no filter: {error}") from error
    return wanted


class BulkQuestions:
    """`Monitor.bulk`; raises as the monitor does."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def matched(self, wanted: JobFilter, lanes: int) -> Matched:
        """How many jobs a filter finds, and how far each lane was applied at that moment."""
        document = filter_document(wanted)
        with self._reads.consistent() as ask:
            [row] = ask(_SQL["matched"], wanted.parameters())
            offsets = {one["lane"]: one["next_offset"] for one in ask(_SQL["offsets"], {})}
        fence = tuple(offsets.get(lane, 0) for lane in range(lanes))
        return Matched(jobs=row["jobs"], fence=fence, filter=document)

    def operations(self, *, state: str | None = None, limit: int = 50) -> tuple[BulkOperation, ...]:
        """The operations, the last started first."""
        with self._reads.consistent() as ask:
            rows = ask(_SQL["bulk"], {"id": None, "state": state, "limit": checked_limit(limit)})
        return tuple(BulkOperation(**row) for row in rows)

    def operation(self, operation: str) -> BulkOperation | None:
        """One operation; None if it is not known (yet)."""
        if not match_job_id(operation):
            raise InvalidQuestion(f"{operation!r:.100} is not the id of a bulk operation")
        with self._reads.consistent() as ask:
            rows = ask(_SQL["bulk"], {"id": operation, "state": None, "limit": 1})
        return BulkOperation(**rows[0]) if rows else None

    def page(self, operation: BulkOperation, last: str | None, limit: int) -> list[Found]:
        """The next jobs of an operation, in the order of their ids, those behind the job `last`."""
        chosen = filter_of(operation.filter).parameters()
        place = {"fence": list(operation.fence), "last": last, "limit": limit, "final": list(map(str, FINAL_STATES))}
        with self._reads.consistent() as ask:
            rows = ask(_SQL["bulk_page"], {**chosen, **place})
        return [_found(row) for row in rows]


def _found(row: Mapping[str, Any]) -> Found:
    names = ("version", "state", "attempt", "task", "queue", "spec", "parameters", "priority")
    has_ended = row["spec"] is not None
    snapshot = {name: row[name] for name in names} | {"created_at": row["created_at"].isoformat()}
    return Found(row["id"], State(row["state"]), row["version"], snapshot if has_ended else None)
