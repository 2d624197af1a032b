"""What a lane wants written: filled by pure code, produced by the elector in one transaction."""

from collections import Counter
from dataclasses import dataclass, field

from joblog.streams.contract import wire
from joblog.streams.lane.job import Job

EventData = wire.JobEvent | wire.CommandRejected | wire.WorkerEvent
#: A job, a worker's last announcement, the continuations of an unknown parent or a block of ended jobs; None is a
#: tombstone.
StateValue = Job | wire.WorkerAnnounced | tuple[tuple[str, str, int], ...] | None


@dataclass(slots=True)
class Outbox:
    """One lane's share of a transaction.

    - events: (key, type, event id, data, cause, traceparent).
    - assignments: (partition, worker, assignment). timers: jobs that wait for an instant.
    - reports: (lane, key, report), to other lanes or this one. forwards: (lane, index of the input).
    - state: key of the state record -> its last value, one record each however often it changed.
    - counts: (metric, label) -> how often.
    """

    events: list[tuple[str, str, str, EventData, str | None, str | None]] = field(default_factory=list)
    assignments: list[tuple[int, str, wire.AnyAssignment]] = field(default_factory=list)
    timers: list[wire.Timer] = field(default_factory=list)
    reports: list[tuple[int, str, wire.AnyReport]] = field(default_factory=list)
    state: dict[str, StateValue] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def empty(self) -> bool:
        return not (self.events or self.assignments or self.timers or self.reports or self.state)
