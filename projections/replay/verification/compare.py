"""A trace beside a row and its history: whether they say the same. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

from joblog.projections.replay.lives import plain
from joblog.projections.replay.verification.tables import Kept, Row
from joblog.projections.replay.verification.trace import Step, Trace, steps_of
from joblog.streams.contract.states import State
from msgspec import json

TYPES_OF_ENDS: Final = {
    "job.succeeded": State.SUCCEEDED,
    "job.failed": State.FAILED,
    "job.deleted": State.DELETED,
}
_encode: Final = json.Encoder(order="sorted").encode
#: Lane, hours since 1970, state -> how many jobs ended so.
Ends = Counter[tuple[int, int, State]]


def expected_row(trace: Trace) -> Row:
    """The row that a job must have."""
    return Row(
        trace.lane,
        str(trace.state),
        trace.version,
        trace.attempt,
        trace.retry or 0,
        trace.priority or 0,
        trace.queue,
        trace.task,
        datetime.fromisoformat(trace.created_at),
        datetime.fromisoformat(trace.changed_at),
        datetime.fromisoformat(trace.due) if trace.due else None,
        trace.worker,
        trace.lease,
        trace.parent,
        trace.on,
        trace.exception_type,
        trace.exception_message,
        trace.spec,
        written(parameters_of(trace)),
        trace.offset,
        trace.state_version,
    )


def comparable(row: Row) -> Row:
    """A row as `expected_row` gives it."""
    return row if row.parameters is None else row._replace(parameters=written(json.decode(row.parameters)))


def parameters_of(trace: Trace) -> dict[str, Any]:
    """The parameters of a job: those it was created with, and those set since."""
    if trace.parameters is None and trace.set is None:
        return {}
    first = json.decode(trace.parameters) if trace.parameters is not None else {}
    return {**first, **{name: json.decode(value) for name, value in (trace.set or {}).items()}}


def written(parameters: dict[str, Any]) -> bytes | None:
    """Parameters as text that is equal if they are; None for none."""
    return _encode(plain(parameters)) if parameters else None


def expected_history(trace: Trace) -> Kept | None:
    """The history of the last life: each version once."""
    life: dict[int, int] = {}
    for step in steps_of(trace):
        if step.begins:
            life = {}
        life.setdefault(step.version, step.digest)
    if not life:
        return None
    return Kept(len(life), sum(life.values()))


def count_ends(trace: Trace, into: Ends) -> None:
    """Count the ends of all lives of a job."""
    for step in _once(steps_of(trace)):
        if step.is_end:
            into[step.lane, step.hour, TYPES_OF_ENDS[step.type]] += 1


def _once(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps, without those whose version was there before in the same life."""
    seen: set[int] = set()
    for step in steps:
        if step.begins:
            seen = set()
        if step.version not in seen:
            seen.add(step.version)
            yield step
