"""Limits as the read model shows them: which jobs run with each, and which wait for it.

No table is kept of them. The jobs that run are few; of those that wait, the ones that became ready first are looked
at.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from joblog.projections.monitor.models import LimitUse, Waits
from joblog.projections.schema.history import read, shown
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.states import State
from joblog.streams.lane.limits.words import named

#: Of the jobs that are ready, as many are looked at.
LOOKED_AT_MAX: Final = 20_000
#: Of the jobs that wait for one limit, as many are shown.
SHOWN_MAX: Final = 20

Row = Mapping[str, Any]


def limit_uses(rows: Iterable[Row]) -> tuple[LimitUse, ...]:
    """The limits of jobs that run, and of those that wait for one, by kind and key."""
    uses: dict[tuple[str, str], LimitUse] = {}
    for row in rows:
        text = _waits_for(row)
        for limit in row["limits"]:
            name = (limit["kind"], limit["key"])
            known = uses.get(name)
            if row["state"] == State.PROCESSING:
                known = known or _begun(limit)
                uses[name] = known.model_copy(update={"running": (*known.running, row["id"])})
            elif text is not None and _is_for(text, limit):
                waits = Waits(id=row["id"], since=row["changed_at"], tenant=limit.get("tenant"), waits_for=text)
                known = known or _begun(limit)
                first = known.first_waiting if known.waiting >= SHOWN_MAX else (*known.first_waiting, waits)
                uses[name] = known.model_copy(update={"waiting": known.waiting + 1, "first_waiting": first})
    return tuple(uses[name] for name in sorted(uses))


def waits_for(history: Iterable[Any]) -> str | None:
    """What a job waits for, by its history, newest first; None if it is not held back."""
    for entry in history:
        if entry.type == "job.held":
            return str(entry.data["waits_for"])
        if entry.type not in {"job.priority_set", "job.parameter_set"}:
            return None
    return None


def _begun(limit: Row) -> LimitUse:
    capacity, interval_s = limit.get("capacity", 1), limit.get("interval_s")
    return LimitUse(kind=LimitKind(limit["kind"]), key=limit["key"], capacity=capacity, interval_s=interval_s)


def _waits_for(row: Row) -> str | None:
    if row["event"] is None:
        return None
    event = shown(read(row["event"]))
    return event["data"].get("waits_for") if event["type"] == "job.held" else None


def _is_for(text: str, limit: Row) -> bool:
    name = named(LimitKind(limit["kind"]), limit["key"])
    return text == name or text.startswith(f"{name}, ")
