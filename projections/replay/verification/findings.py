"""What a verification finds: one value for each place where something does not hold."""

from enum import StrEnum
from typing import Any, Final

from msgspec import Struct


class Kind(StrEnum):
    """What is wrong.

    In the log itself:

    - version_gap: events of a job are missing. doubled_event: one version of one life is there twice.
    - wrong_lane: an event lies in another lane than its job's id names.
    - two_leases: a run began while another was open. wrong_lease: a run ended that was not the open one.
    - left_final: a final state was left without a command.
    - orphan: a continuation waits, though its parent ended long ago, or does not exist.
    - unreadable: a record cannot be read.

    In Postgres, compared with the log:

    - job, history, worker: a row is missing, too much, or says something else.
    - counter: a count of jobs by state is not the number of rows. outcome: a count of ends is not that of the log.
    - expiry: a row is still there that had expired, or more are gone than are recorded as expired.
    - control: a paused queue or a bulk operation is missing, too much, or says something else.
    - rejected, parked: a row is missing, too much, or says something else.

    In what electors write beside the events, compared with the log:

    - state: a live job is missing in `state`, an ended one is still there, or one says something else; a
      continuation waits of which its parent's record knows nothing, or the other way round.
    - deadletter: a command that could not be read is not among the dead letters, is there twice, or is there though
      no event rejects it.
    """

    VERSION_GAP = "version_gap"
    DOUBLED_EVENT = "doubled_event"
    WRONG_LANE = "wrong_lane"
    TWO_LEASES = "two_leases"
    WRONG_LEASE = "wrong_lease"
    LEFT_FINAL = "left_final"
    ORPHAN = "orphan"
    UNREADABLE = "unreadable"
    JOB = "job"
    HISTORY = "history"
    COUNTER = "counter"
    OUTCOME = "outcome"
    WORKER = "worker"
    EXPIRY = "expiry"
    BATCH = "batch"
    CONTROL = "control"
    REJECTED = "rejected"
    PARKED = "parked"
    STATE = "state"
    DEADLETTER = "deadletter"


#: What speaks against the tables, and not against the log or against what electors keep.
OF_TABLES: Final = frozenset(
    {
        Kind.JOB,
        Kind.HISTORY,
        Kind.WORKER,
        Kind.BATCH,
        Kind.CONTROL,
        Kind.COUNTER,
        Kind.OUTCOME,
        Kind.EXPIRY,
        Kind.REJECTED,
        Kind.PARKED,
    }
)


class Finding(Struct, frozen=True, kw_only=True):
    """One place where something does not hold; its JSON form is stable: fields are only ever added.

    - lane, job, position (`events/LANE@OFFSET`): where; None where there is no such place.
    - what: a line for people. log, found: both sides, as far as there are two; `found` is of Postgres or `state`.
    """

    kind: Kind
    lane: int | None
    job: str | None
    what: str
    position: str | None = None
    log: Any = None
    found: Any = None


def position(lane: int, offset: int) -> str:
    """Where a record lies in the topic `events`."""
    return f"events/{lane}@{offset}"
