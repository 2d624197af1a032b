"""How long the rows of ended jobs are kept: one function of state, queue, task and settings. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from joblog.streams.contract.states import State
from msgspec import Struct, json

#: The states whose rows may expire.
EXPIRING: Final = (State.SUCCEEDED, State.DELETED, State.FAILED)

#: Rows of `jobs` to delete in one transaction.
BATCH_MAX: Final = 500
#: State -> for how many seconds a row is kept; None: for ever.
Kept = Mapping[State, float | None]


class Rules(Struct, frozen=True):
    """For how long rows are kept; what the task says goes before what the queue says, and that before the state's.

    - hours_s, days_s: for how long the counts of ends by hour and by day are kept.
    - batches: for how long the rows of batches that ended in these states are kept.
    """

    states: dict[State, float | None] = {}
    queues: dict[str, dict[State, float | None]] = {}
    tasks: dict[str, dict[State, float | None]] = {}
    hours_s: float | None = None
    days_s: float | None = None
    batches: dict[State, float | None] = {}


class Cutoffs(Struct, frozen=True):
    """For jobs of one state and task: those that ended before this have expired, and None have not.

    - otherwise: for all queues but those in `own`.
    """

    otherwise: datetime | None
    own: dict[str, datetime | None]

    @property
    def latest(self) -> datetime | None:
        """What ended later than this has not expired, whatever its queue."""
        return max((one for one in (self.otherwise, *self.own.values()) if one is not None), default=None)

    def of(self, queue: str) -> datetime | None:
        return self.own.get(queue, self.otherwise)


_encode: Final = json.Encoder(order="deterministic").encode
_decode: Final = json.Decoder(Rules).decode


def kept_s(rules: Rules, state: State, queue: str, task: str) -> float | None:
    """For how many seconds after its end the row of such a job is kept; None: for ever."""
    for said in (rules.tasks.get(task), rules.queues.get(queue), rules.states):
        if said is not None and state in said:
            return said[state]
    return None


def has_expired(rules: Rules, state: State, queue: str, task: str, ended_at: datetime, now: datetime) -> bool:
    """Whether the row of a job that is in this state since `ended_at` has to go."""
    if state not in EXPIRING:
        return False
    cutoff = before(now, kept_s(rules, state, queue, task))
    return cutoff is not None and ended_at < cutoff


def cutoffs(rules: Rules, state: State, task: str, now: datetime) -> Cutoffs:
    """The same rule for all jobs of a state and a task, as statements take it."""
    otherwise = before(now, kept_s(rules, state, "", task))
    own = {queue: before(now, kept_s(rules, state, queue, task)) for queue in rules.queues}
    return Cutoffs(otherwise, {queue: cutoff for queue, cutoff in own.items() if cutoff != otherwise})


def before(now: datetime, kept: float | None) -> datetime | None:
    """The instant that lies so many seconds before `now`."""
    return None if kept is None else now - timedelta(seconds=kept)


def batches_before(rules: Rules, now: datetime) -> Iterator[tuple[State, datetime]]:
    """The states of batches whose rows expire, and that those which ended before this have expired."""
    for state in EXPIRING:
        cutoff = before(now, rules.batches.get(state))
        if cutoff is not None:
            yield state, cutoff


def is_idle(rules: Rules) -> bool:
    """Whether nothing ever expires."""
    every = (rules.states, rules.batches, *rules.queues.values(), *rules.tasks.values())
    return rules.hours_s is rules.days_s is None and all(kept is None for one in every for kept in one.values())


def written(rules: Rules) -> str:
    """The rules as JSON, the same for the same rules."""
    return _encode(rules).decode()


def read(text: str) -> Rules:
    """The rules that were written so."""
    return _decode(text)
