"""What a lane wants written: filled by pure code, written by the elector in one transaction."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.lane.job import Job
from msgspec import Struct

EventData = (
    wire.JobEvent
    | wire.CommandRejected
    | wire.WorkerEvent
    | wire.QueueEvent
    | wire.LimitChanged
    | wire.ParentSought
    | wire.BulkStarted
    | wire.BulkAdvanced
    | wire.BulkEnded
    | wire.BatchEvent
)
#: A job, or what a feature keeps in its records; None is a tombstone.
StateValue = Job | Struct | tuple[Any, ...] | None


#: What one transaction may hold, over all of its lanes, so that it is sent within its time-out of 10 s over a slow
#: network, and fits into the producer's queue. Everything beyond waits for the next turn.
RECORDS_MAX: Final = 100_000
BYTES_MAX: Final = 32 * 1024 * 1024


@dataclass(slots=True)
class Budget:
    """What is left of a turn's transaction: records, and bytes of what jobs carry."""

    records: int = RECORDS_MAX
    size: int = BYTES_MAX

    def spend(self, records: int, size: int) -> None:
        """Count what was written, also when the budget is spent."""
        self.records -= records
        self.size -= size

    @property
    def is_spent(self) -> bool:
        """Whether the transaction is full."""
        return self.records <= 0 or self.size <= 0

    @property
    def is_half_spent(self) -> bool:
        """Whether to stop taking inputs: the other half of the budget is for what they lead to."""
        return self.records <= RECORDS_MAX // 2 or self.size <= BYTES_MAX // 2


@dataclass(slots=True)
class LaneOutput:
    """One lane's share of a transaction.

    - events: (key, type, event id, data, cause, traceparent).
    - assignments: (partition, worker, assignment). timers: jobs that wait for an instant.
    - reports: (lane, key, report), to other lanes or this one. forwards: (lane, index of the input).
    - state: key of the state record -> its last value, one record each however often it changed.
    - counts: (metric, labels ...) -> how often. created, ended: jobs to count by their queues and tasks.
    - budget: what is left of the transaction, shared by all lanes of a turn.
    """

    events: list[tuple[str, str, str, EventData, str | None, str | None]] = field(default_factory=list)
    assignments: list[tuple[int, str, wire.AnyAssignment]] = field(default_factory=list)
    timers: list[wire.Timer] = field(default_factory=list)
    reports: list[tuple[int, str, wire.AnyReport]] = field(default_factory=list)
    state: dict[str, StateValue] = field(default_factory=dict)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    created: list[Job] = field(default_factory=list)
    ended: list[Job] = field(default_factory=list)
    budget: Budget = field(default_factory=Budget)

    @property
    def empty(self) -> bool:
        return not (self.events or self.assignments or self.timers or self.reports or self.state)
