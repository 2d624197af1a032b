"""Limits as the read model shows them: which jobs run with each, which wait for it, and why a job does not start.

Of limits of keys no table is kept. The jobs that run are few; of those that wait, the ones that became ready first
are looked at. That a job waits for a limit of its own is in its history; who has that now, the jobs that run tell.
That one waits for the limit of its queue is in no event: it follows from how many of its jobs run, or have started.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Final, Protocol

from joblog.projections.monitor.models import LimitUse, Waits
from joblog.projections.monitor.reads import Ask
from joblog.projections.schema.history import read, shown
from joblog.projections.statements import load
from joblog.streams.contract.relations import RATES, LimitKind
from joblog.streams.contract.states import State
from joblog.streams.lane.limits import words
from joblog.streams.lane.limits.words import named

SQL: Final = load("monitor/monitor.sql")
#: Of the jobs that are ready, as many are looked at.
LOOKED_AT_MAX: Final = 20_000
#: Of the jobs that wait for one limit, as many are shown.
SHOWN_MAX: Final = 20
#: Of a rate that lets more jobs start in an interval nothing is said: counting them would take too long.
STARTS_MAX: Final = 10_000
#: The tables are a moment behind, so the last starts that a rate has allowed may not be in them yet.
STARTS_SHARE: Final = 0.9

Row = Mapping[str, Any]
LimitName = tuple[LimitKind, str]


def limit_uses(rows: Iterable[Row]) -> tuple[LimitUse, ...]:
    """The limits of jobs that run, and of those that wait for one, by kind and key."""
    uses: dict[LimitName, LimitUse] = {}
    for row in rows:
        text = _waits_for(row)
        for limit in row["limits"]:
            name = (LimitKind(limit["kind"]), limit["key"])
            known = uses.get(name)
            if row["state"] == State.PROCESSING:
                known = known or _begun(limit)
                uses[name] = known.model_copy(update={"running": (*known.running, row["id"])})
            elif text is not None and _is_for(text, name):
                waits = Waits(id=row["id"], since=row["changed_at"], tenant=limit.get("tenant"), waits_for=text)
                known = known or _begun(limit)
                first = known.first_waiting if known.waiting >= SHOWN_MAX else (*known.first_waiting, waits)
                uses[name] = known.model_copy(update={"waiting": known.waiting + 1, "first_waiting": first})
    return tuple(_with_holders(uses[name]) for name in sorted(uses))


def waits_for(history: Iterable[Any]) -> str | None:
    """What a job of its own waits for, by its history, newest first; None if it is not held back."""
    for entry in history:
        if entry.type == "job.held":
            return str(entry.data["waits_for"])
        if entry.type not in {"job.priority_set", "job.parameter_set"}:
            return None
    return None


def held_by(text: str, limits: Sequence[Row], holders: Iterable[Row]) -> tuple[str, bool]:
    """What a job was told that it waits for, with those that have it now, and whether anybody has."""
    for limit in limits:
        name = (LimitKind(limit["kind"]), limit["key"])
        if _is_for(text, name):
            now = [one["id"] for one in holders if (one["kind"], one["key"]) == name]
            return _held_by(name, now), bool(now)
    return text, True


def queue_is_full(limit: Row, queue: str, running: int, started: int | None) -> str | None:
    """That the limit of its queue lets no job start now; None if it does."""
    kind, capacity = LimitKind(limit["kind"]), limit["capacity"]
    if kind not in RATES:
        return f"the limit of queue {queue} ({running} running of {capacity})" if running >= capacity else None
    if started is None or started < ceil(STARTS_SHARE * capacity):
        return None
    return f"the limit of queue {queue} ({started} started of {capacity} in {limit['interval_s']:g} s)"


def since_when(limit: Row, now: datetime) -> datetime:
    """Since when starts count against a rate."""
    interval = timedelta(seconds=limit["interval_s"])
    if LimitKind(limit["kind"]) is not LimitKind.FIXED_WINDOW:
        return now - interval
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (now - epoch) // interval * interval


class Facts(Protocol):
    """What is asked to say why a job does not start."""

    def holders(self, limits: Sequence[Row]) -> Sequence[Row]:
        """The jobs that run with one of these limits, with its kind and key."""

    def queue_limit(self, queue: str) -> Row | None:
        """The limit of a queue, and how many of its jobs run."""

    def started(self, queue: str, since: datetime, most: int) -> int:
        """How many of its jobs have started since then; no more than `most` are counted."""


class StoredFacts:
    """The same from the tables."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def holders(self, limits: Sequence[Row]) -> Sequence[Row]:
        named_so = {"kinds": [one["kind"] for one in limits], "keys": [one["key"] for one in limits]}
        return self._ask(SQL["holders"], named_so)

    def queue_limit(self, queue: str) -> Row | None:
        return next(iter(self._ask(SQL["queue_limit"], {"queue": queue})), None)

    def started(self, queue: str, since: datetime, most: int) -> int:
        return int(self._ask(SQL["starts"], {"queue": queue, "since": since, "most": most})[0]["n"])


def why(facts: Facts, row: Row, history: Iterable[Any], now: datetime) -> str | None:
    """Why a job does not start although a worker is free, by its row and its history, newest first."""
    if row["state"] != State.ENQUEUED:
        return None
    text, held = waits_for(history), False
    if text is not None:
        limits = (row["spec"] or {}).get("limits", ())
        text, held = held_by(text, limits, facts.holders(limits))
    if held or (limit := facts.queue_limit(row["queue"])) is None:
        return text
    started = None
    if limit["kind"] in RATES and limit["capacity"] <= STARTS_MAX:
        started = facts.started(row["queue"], since_when(limit, now), limit["capacity"])
    return queue_is_full(limit, row["queue"], limit["running"], started) or text


def _with_holders(use: LimitUse) -> LimitUse:
    """The limit, with those that have it now as what the others wait for."""
    text = _held_by((use.kind, use.key), use.running)
    waiting = tuple(one.model_copy(update={"waits_for": text}) for one in use.first_waiting)
    return use.model_copy(update={"first_waiting": waiting})


def _held_by(name: LimitName, holders: Sequence[str]) -> str:
    """Nobody has a rate: it counts starts."""
    return named(*name) if name[0] in RATES else words.waits_for(name, holders)


def _begun(limit: Row) -> LimitUse:
    capacity, interval_s = limit.get("capacity", 1), limit.get("interval_s")
    return LimitUse(kind=LimitKind(limit["kind"]), key=limit["key"], capacity=capacity, interval_s=interval_s)


def _waits_for(row: Row) -> str | None:
    if row["event"] is None:
        return None
    event = shown(read(row["event"]))
    return event["data"].get("waits_for") if event["type"] == "job.held" else None


def _is_for(text: str, name: LimitName) -> bool:
    limit = named(*name)
    return text == limit or text.startswith(f"{limit}, ")
