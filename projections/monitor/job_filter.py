"""Which jobs a list shows, and in which order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypedDict

from joblog.projections.questions import InvalidQuestion
from joblog.streams.contract.fields import match_job_id
from joblog.streams.contract.states import State

#: Clocks of electors differ: an event may bear an earlier time than the one before it, but not by so much.
CLOCKS_DIFFER_AT_MOST: Final = timedelta(minutes=10)


class Order(StrEnum):
    """By when jobs came into their state (newest, oldest), were created, or (Scheduled only) are due.

    The last created come first, and those due first.
    """

    NEWEST = "newest"
    OLDEST = "oldest"
    CREATED = "created"
    DUE = "due"


class Chosen(TypedDict, total=False):
    """The fields of JobFilter as keyword arguments."""

    state: State | Collection[State] | None
    queue: str | None
    task: str | None
    worker: str | None
    parent: str | None
    retrying: bool
    created_after: datetime | None
    created_before: datetime | None
    changed_after: datetime | None
    changed_before: datetime | None
    q: str | None
    order: Order | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """What a job must be like to be listed; None (or False) for no matter.

    - worker: who runs it, or whose run brought it into its state.
    - parent: the job that it waits, or waited, for.
    - retrying: waits for an automatic retry; implies Scheduled.
    - created_, changed_: from `after` on, and before `before`.
    - order: None for the newest first, or by creation when that is filtered, as an index finds them so.
    - q: a job's id, or a part of the type or message of its last exception, in any case of letters.
    """

    state: State | Collection[State] | None = None
    queue: str | None = None
    task: str | None = None
    worker: str | None = None
    parent: str | None = None
    retrying: bool = False
    created_after: datetime | None = None
    created_before: datetime | None = None
    changed_after: datetime | None = None
    changed_before: datetime | None = None
    q: str | None = None
    order: Order | None = None

    @property
    def ordered(self) -> Order:
        """The order that was asked for, or the one that goes without saying."""
        if self.order is not None:
            return self.order
        return Order.NEWEST if self.created_after is None and self.created_before is None else Order.CREATED

    def states(self) -> list[State]:
        """The states that are listed, in a fixed order."""
        if self.retrying or self.order is Order.DUE:
            wanted: Collection[State] = {State.SCHEDULED}
            if self.state is not None and set(_several(self.state)) != wanted:
                raise InvalidQuestion("only Scheduled jobs are due or wait for a retry: ask for no other state")
        else:
            wanted = set(State) if self.state is None else set(_several(self.state))
        return [state for state in State if state in wanted]

    def parameters(self) -> Mapping[str, Any]:
        """What the statements of monitor.sql know these as; InvalidQuestion for an id that is none."""
        if self.parent is not None and not match_job_id(self.parent):
            raise InvalidQuestion(f"parent {self.parent!r:.100} is no job id")
        for when in (self.created_after, self.created_before, self.changed_after, self.changed_before):
            if when is not None and when.tzinfo is None:
                raise InvalidQuestion(f"the time {when.isoformat()} has no zone: add one, such as Z or +02:00")
        text = _text(self.q)
        is_id = text is not None and match_job_id(text.lower()) is not None
        return {
            "states": [str(state) for state in self.states()],
            "queue": _text(self.queue),
            "task": _text(self.task),
            "worker": _text(self.worker),
            "parent": self.parent,
            "retrying": self.retrying,
            "created_after": self.created_after,
            "created_before": self.created_before,
            "changed_after": self._changed_after(),
            "changed_before": self.changed_before,
            "id": text.lower() if text is not None and is_id else None,
            "error": None if is_id else text,
        }

    def _changed_after(self) -> datetime | None:
        """A job changed when it was created or later: this lets an index skip what is too old."""
        if self.created_after is None:
            return self.changed_after
        try:
            implied = self.created_after - CLOCKS_DIFFER_AT_MOST
        except OverflowError:  # the calendar begins there: nothing is too old
            return self.changed_after
        return implied if self.changed_after is None else max(self.changed_after, implied)


def _several(state: State | Collection[State]) -> Collection[State]:
    return [state] if isinstance(state, State) else state


def _text(text: str | None) -> str | None:
    if text is not None and "\x00" in text:
        raise InvalidQuestion("a NUL character is in no job")
    try:
        (text or "").encode()
    except UnicodeEncodeError:  # half a surrogate pair, as JSON may escape one, or what a shell gives beside UTF-8
        raise InvalidQuestion(f"{text!r:.100} is no text in UTF-8") from None
    return text or None
