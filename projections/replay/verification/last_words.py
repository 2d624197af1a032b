"""What was said last of workers and batches: the log's side of the tables `workers` and `batches`. Pure.

The events of a lane count in their order, also where the time of one lies behind that of the one before. Two lanes
have no common order but the times: the table takes what another lane says if it is not older than what it holds.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from joblog.projections.projector.decode import BatchFact, WorkerFact
from joblog.projections.projector.event_batch import Record
from joblog.projections.projector.rows import batch_row
from msgspec import Struct


class Worker(Struct, array_like=True):
    """The last event of a worker in one lane, and the latest time that any of its events in this lane bears.

    - says: the columns of the table `workers` behind its id; times as RFC 3339 in UTC.
    """

    says: list[Any]
    latest: str

    @property
    def row(self) -> list[Any]:
        """The columns with their times read."""
        *shown, started, at = self.says
        return [*shown, datetime.fromisoformat(started), datetime.fromisoformat(at)]


def newer(before: Worker | None, record: Record, fact: WorkerFact) -> Worker:
    """What holds after one more event of the worker in the same lane."""
    event = fact.event
    shown = (list(event.queues), list(event.tasks), event.slots, event.host, event.pid, event.started_at.isoformat())
    latest = fact.at
    if before is not None and datetime.fromisoformat(before.latest) > datetime.fromisoformat(latest):
        latest = before.latest
    return Worker([record.lane, record.offset, fact.state, *shown, fact.at], latest)


def fits(row: Sequence[Any], last: Mapping[int, Worker]) -> bool:
    """Whether the table may hold it: the last event of its lane, and no other lane ends later than all of it."""
    own = last.get(row[0])
    if own is None or list(row) != own.row:
        return False
    latest = datetime.fromisoformat(own.latest)
    return all(one.row[-1] <= latest for one in last.values())


def batch_words(record: Record, fact: BatchFact) -> list[Any]:
    """What the table `batches` must say of a batch behind its id, by its last event."""
    row = batch_row(record, fact)
    return batch_row_words([value for name, value in row.items() if name != "id"])


def batch_row_words(row: Sequence[Any]) -> list[Any]:
    """A row of the statement `batches`, behind its id, in a form that a checkpoint holds."""
    return [_in_words(value) for value in row]


def state_of_batch(words: Sequence[Any]) -> tuple[str, str]:
    """The state of a batch, and when its last event was written."""
    return words[11], words[1]


def _in_words(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value) if isinstance(value, str) else value
