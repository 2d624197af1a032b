"""Unique keys: of a queue and a key, one job at a time; what becomes of another one is its policy.

One lane decides about a key, that of the queue's shard to which the key belongs, so nothing has to be asked of other
lanes. Whether a job claims its key follows from the job's record alone: until it ends, which a final Failed is, or
until its first start. So claims are found again when the lane is loaded. Only a claim for a period after the creation
may outlast its job, and has a record of its own, which is dropped when the period is over.

A job that has let go of its key may claim it again, by a requeue, unless another one claims it by then.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Any, ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.relations import UniquePolicy, UniqueUntil
from joblog.streams.contract.states import AWAITING, ENQUEUED, FINAL_STATES, PROCESSING, SCHEDULED
from joblog.streams.lane.extras import USES_UNIQUE
from joblog.streams.lane.feature import Feature
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Rejection
from joblog.streams.lane.waiting import STALE_MIN
from msgspec import msgpack

UNIQUE_KEY: Final = "unique:"
#: Keys that a lane holds for a period; another one is refused until one of them is over.
PERIODS_MAX: Final = 100_000
#: Periods that are dropped in one turn; there are ten turns a second.
DROPPED_MAX: Final = 5_000

_NOT_STARTED: Final = frozenset({AWAITING, SCHEDULED, ENQUEUED})

#: A claim for a period: the job, and until when it has the key (unix milliseconds).
Period = tuple[str, int]


class UniqueKeys(Feature):
    """Which jobs claim which key; its records are the claims for a period."""

    uses: ClassVar = USES_UNIQUE
    prefix: ClassVar = UNIQUE_KEY
    decoder: ClassVar = msgpack.Decoder(Period)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        #: By queue and key: mostly one job. Two, while one runs and a debounced one waits for its end; sorted, so
        #: that whoever takes the lane over names the same one.
        self.claims: dict[str, tuple[str, ...]] = {}
        self.periods: dict[str, Period] = {}
        self._ends: list[tuple[int, str]] = []

    # --- loading ---

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        self._hold(key, value)

    def found(self, job: Job, clock_ms: int) -> None:
        if _claims(job):
            self._add(job)

    # --- who may be created, and who may come back ---

    def creating(self, job: Job, cause: str, election: Election, out: LaneOutput) -> Rejection | None:
        unique, place = _unique(job), place_of(job)
        if wrong := self._wrong_lane(job):
            return wrong
        if job.state in FINAL_STATES:  # a filter elected that
            return None
        others = tuple(self._others(place, election.now_ms))
        if others and unique.policy in {UniquePolicy.REJECT, UniquePolicy.EXISTING}:
            return _taken(job, others[0])
        if unique.until is UniqueUntil.PERIOD and len(self.periods) >= PERIODS_MAX and place not in self.periods:
            return Rejection("too_many", f"the lane holds {PERIODS_MAX} unique keys for a period, and no more")
        for other in others:
            self._make_way(other, job, cause, election, out)
        for other in self.claims.get(place, ()):
            if unique.policy is not UniquePolicy.DEBOUNCE or not self._runs(other):  # a filter kept it
                return _taken(job, other)
        return None

    def changing(self, job: Job, command: Any, election: Election) -> Rejection | None:
        if not isinstance(command, wire.RequeueJob | wire.RescheduleJob):
            return None
        if isinstance(command, wire.RequeueJob) and command.queue not in {None, job.queue}:
            return Rejection("invalid", f"a job with a unique key stays in its queue, {job.queue}")
        if _claims(job) or not _would_claim(job):
            return None
        others = self.claims.get(place_of(job), ())
        return _taken(job, others[0]) if others else self._wrong_lane(job)

    def _wrong_lane(self, job: Job) -> Rejection | None:
        key, pipeline = _unique(job).key, self.pipeline
        lane = pipeline.rules.lane_of_key(job.queue, key, pipeline.lanes)
        if lane == pipeline.number:
            return None
        return Rejection(
            "wrong_lane", f"lane {lane} decides about key {key!r} of queue {job.queue}, not lane {pipeline.number}"
        )

    def _others(self, place: str, now_ms: int) -> Iterator[str]:
        """The jobs that claim the key."""
        claims = self.claims.get(place, ())
        yield from claims
        period = self.periods.get(place)
        if period is not None and period[1] > now_ms and period[0] not in claims:
            yield period[0]

    def _make_way(self, other: str, job: Job, cause: str, election: Election, out: LaneOutput) -> None:
        """Delete the other job, unless it has ended, or runs and is not to be disturbed."""
        live = self.pipeline.store.jobs.get(other)
        if live is None or live.state in FINAL_STATES:
            return
        if _unique(job).policy is UniquePolicy.DEBOUNCE and live.state is PROCESSING:
            return
        why = f"Replaced by job {job.id}, which has the same unique key"
        self.pipeline.apply(live, wire.DeleteJob(job_id=other, reason=why), cause, election, out)

    # --- who claims what ---

    def moved(self, before: Job | None, job: Job, what: Any, election: Election, out: LaneOutput) -> None:
        claimed, claims = before is not None and _claims(before), _claims(job)
        if claims and not claimed:
            self._add(job)
        elif claimed and not claims:
            self._remove(job)
        if before is None:
            self._begin_period(job, out)
        elif before.state is PROCESSING and job.state is not PROCESSING:
            for other in self.claims.get(place_of(job), ()):
                self.pipeline.store.release(other)

    def may_start(self, job: Job, _election: Election, _out: LaneOutput) -> str | None:
        if not _claims(job):  # it had its key until its start, and is not released with those that claim it
            return None
        for other in self.claims.get(place_of(job), ()):
            if other != job.id and self._runs(other):
                return f"job {other}, which has the same unique key"
        return None

    def _runs(self, job_id: str) -> bool:
        return self.pipeline.store.jobs[job_id].state is PROCESSING

    def _add(self, job: Job) -> None:
        place = place_of(job)
        self.claims[place] = tuple(sorted((*self.claims.get(place, ()), job.id)))

    def _remove(self, job: Job) -> None:
        place = place_of(job)
        rest = tuple(one for one in self.claims.pop(place) if one != job.id)
        if rest:
            self.claims[place] = rest

    # --- claims for a period ---

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Drop the claims whose period is over."""
        for _ in range(DROPPED_MAX):
            if not self._ends or self._ends[0][0] > election.now_ms or out.budget.is_spent:
                return
            until_ms, place = heappop(self._ends)
            if self.periods.get(place, ("", 0))[1] == until_ms:  # else a later job has it by now
                del self.periods[place]
                out.state[UNIQUE_KEY + place] = None
                out.budget.spend(1, 0)

    def _begin_period(self, job: Job, out: LaneOutput) -> None:
        until_ms = period_end_ms(job)
        if until_ms:
            place = place_of(job)
            self._hold(place, (job.id, until_ms))
            out.state[UNIQUE_KEY + place] = self.periods[place]

    def _hold(self, place: str, period: Period) -> None:
        self.periods[place] = period
        heappush(self._ends, (period[1], place))
        if len(self._ends) > 2 * len(self.periods) + STALE_MIN:  # claims that later jobs have taken over
            self._ends = [(until_ms, held) for held, (_, until_ms) in self.periods.items()]
            heapify(self._ends)


def place_of(job: Job) -> str:
    """What tells a job's key from those of other queues."""
    return f"{job.queue}/{_unique(job).key}"


def period_end_ms(created: Job) -> int:
    """Until when a job, as it was created, has its key for a period (unix milliseconds); 0 if it has not."""
    unique = _unique(created)
    if unique.until is not UniqueUntil.PERIOD or unique.period_s is None or created.state in FINAL_STATES:
        return 0
    return created.created_ms + round(unique.period_s * 1000)


def _unique(job: Job) -> wire.Unique:
    assert job.extras is not None
    assert job.extras.unique is not None
    return job.extras.unique


def _claims(job: Job) -> bool:
    """Whether the job's record says that it has its key."""
    until = _unique(job).until
    if until is UniqueUntil.END:
        return job.state not in FINAL_STATES
    return until is UniqueUntil.START and job.attempt == 0 and job.state in _NOT_STARTED


def _would_claim(job: Job) -> bool:
    """Whether an ended job claims its key again when it is requeued."""
    until = _unique(job).until
    return until is UniqueUntil.END or (until is UniqueUntil.START and job.attempt == 0)


def _taken(job: Job, other: str) -> Rejection:
    unique = _unique(job)
    code = "existing" if unique.policy is UniquePolicy.EXISTING else "not_unique"
    return Rejection(code, f"job {other} has the unique key {unique.key!r} of queue {job.queue}", other)
