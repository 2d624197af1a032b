"""What the log alone must show of jobs that share limits and unique keys: asked after every event of every lane."""

from collections import defaultdict

from joblog.streams.contract import wire
from joblog.streams.contract.relations import LimitKind, UniqueUntil
from joblog.streams.contract.states import State
from joblog.streams.lane.job import Job, is_transition

_RUNNING = frozenset({LimitKind.MUTEX, LimitKind.SEMAPHORE})
#: A job has its unique key in these states, if it has it until its end.
_LIVE = frozenset({State.AWAITING, State.SCHEDULED, State.ENQUEUED, State.PROCESSING})


class Audit:
    """Reads events in the order in which they were committed."""

    def __init__(self) -> None:
        self.holders: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.starts: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.unique: dict[tuple[str, str], set[str]] = defaultdict(set)
        #: How many jobs started under a limit, by its kind.
        self.counted: dict[LimitKind, int] = defaultdict(int)

    def take(self, job: Job, event: wire.JobEvent, at_ms: int) -> None:
        """An event, and the job after it."""
        if job.extras is None or not is_transition(event):
            return
        for limit in job.extras.limits:
            self._limit(limit, job.id, event.state is State.PROCESSING, at_ms)
        unique = job.extras.unique
        if unique is not None and unique.until is UniqueUntil.END:
            self._unique((job.queue, unique.key), job)

    def _limit(self, limit: wire.Limit, job_id: str, is_start: bool, at_ms: int) -> None:
        key = (limit.kind.value, limit.key)
        self.counted[limit.kind] += is_start
        if limit.kind in _RUNNING:
            held = self.holders[key]
            (held.add if is_start else held.discard)(job_id)
            assert len(held) <= limit.capacity, f"{key} is held by {held}"
        elif is_start:
            self._rate(limit, self.starts[key], at_ms)

    def _rate(self, limit: wire.Limit, starts: list[int], at_ms: int) -> None:
        starts.append(at_ms)
        assert limit.interval_s is not None
        interval_ms = limit.interval_s * 1000
        match limit.kind:
            case LimitKind.SLIDING_WINDOW:
                inside = [one for one in starts if one > at_ms - interval_ms]
                assert len(inside) <= limit.capacity, f"{limit.key}: {inside}"
            case LimitKind.FIXED_WINDOW:
                inside = [one for one in starts if one // interval_ms == at_ms // interval_ms]
                assert len(inside) <= limit.capacity, f"{limit.key}: {inside}"
            case LimitKind.TOKEN_BUCKET:
                for number, since in enumerate(starts):
                    allowed = limit.capacity + (at_ms - since) * limit.capacity / interval_ms
                    assert len(starts) - number <= allowed + 1e-9, f"{limit.key}: {starts[number:]}"
        del starts[:-1000]

    def _unique(self, key: tuple[str, str], job: Job) -> None:
        owners = self.unique[key]
        (owners.add if job.state in _LIVE else owners.discard)(job.id)
        assert len(owners) <= 1, f"{key} is had by {owners}"
