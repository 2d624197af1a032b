"""A lane's jobs, folded from the events of the log; what the topic `state` holds follows from them.

An elector never needs this: it keeps `state` in the transactions that write the events. It is for the day when
`state` is lost.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.lane.batch_fold import KEPT_MS, BatchFold
from joblog.streams.lane.control_fold import ControlFold
from joblog.streams.lane.ended_jobs import BLOCK_MAX
from joblog.streams.lane.features.former_continuations import FORMER_KEY
from joblog.streams.lane.features.limit_claims import LIMIT_KEY
from joblog.streams.lane.features.memory import ENDED_KEY
from joblog.streams.lane.features.queue_limits import spent
from joblog.streams.lane.features.queue_shares import QUEUE_LIMIT_KEY
from joblog.streams.lane.features.unique_keys import UNIQUE_KEY, Period, period_end_ms, place_of
from joblog.streams.lane.features.unmet_continuations import UNMET_KEY
from joblog.streams.lane.job import Job, evolve, is_transition, new_job
from joblog.streams.lane.limits.fold import LimitsFold
from joblog.streams.lane.output import StateValue
from joblog.streams.lane.parents_fold import ParentsFold
from joblog.streams.lane.wait_fold import wait_records
from msgspec import json

_spec: Final = json.Decoder(wire.JobSpec).decode


class EventFold:
    """The jobs of lane `number`, event by event.

    The events of this lane are given in their order; of the other lanes, in any order, only what their
    continuations wait for and the limits that their jobs use count. What no event tells is lost: how often a
    Scheduled job's worker was lost.

    - kept: how many ended jobs are remembered, and can be revived by a later event. lanes: how many there are.
      batches_ms: for how long ended batches are kept.
    """

    def __init__(self, number: int, kept: int, lanes: int, batches_ms: int = KEPT_MS) -> None:
        self.number, self.lanes = number, lanes
        self._limits = LimitsFold(number, lanes, kept)
        self.jobs: dict[str, Job] = {}
        self.ended: OrderedDict[str, Job] = OrderedDict()
        self.waits = ParentsFold(number)
        self._kept = kept
        #: The latest time of an event, by whatever clock.
        self._latest_ms = 0
        #: Unique keys that are held for a period, the last claim of each.
        self._periods: dict[str, Period] = {}
        #: Events of jobs whose first event is unknown: they were revived after they were forgotten, or it is lost.
        self.unknown: set[str] = set()
        #: To be given the lane's own events that are of no job.
        self.controls = ControlFold()
        #: Given the events of batches by whoever reads them.
        self.batches = BatchFold(number, batches_ms)

    def apply(self, job_id: str, event: wire.JobEvent, at_ms: int, traceparent: str | None) -> None:
        """One event of a job, of whatever lane; `at_ms` is when it was written."""
        if not is_transition(event) or not self.batches.job(job_id, event):
            self.waits.apply(job_id, event)
        self._limits.apply(job_id, event, at_ms)
        self._latest_ms = max(self._latest_ms, at_ms)
        if lane_of_job(job_id) != self.number:
            return
        before = self.jobs.get(job_id) or self.ended.pop(job_id, None)
        if event.version == 1 and event.spec is not None:
            spec = bytes(event.spec)
            created = _spec(spec)
            job = new_job(job_id, event, spec, created.priority, at_ms, created)
            job.traceparent = traceparent
            self._note_period(job)
        elif before is None:
            self.unknown.add(job_id)
            return
        else:
            job = evolve(before, event, at_ms)
        self.jobs.pop(job_id, None)
        if job.state in FINAL_STATES and job.state is not State.FAILED:
            self.ended[job_id] = job
            if len(self.ended) > self._kept:
                self.ended.popitem(last=False)
        else:
            self.jobs[job_id] = job

    def take(self, other: "EventFold") -> None:
        """Add the jobs of another fold of this lane, which were unknown to this one."""
        self.jobs |= other.jobs
        self.ended |= other.ended
        self.unknown = other.unknown

    def state(self, now_ms: int) -> dict[str, StateValue]:
        """The records of `state`: live jobs, with those that wait for them, and the ended ones to be remembered.

        Waits for parents that nobody has created yet begin anew at `now_ms`.
        """
        records = self.controls.state()
        records |= wait_records(self._waits(), self.jobs, self.ended, now_ms)
        records.update(self.jobs)
        records.update(self.batches.records(now_ms))
        queue_limits = self.controls.queue_limits.items()
        started_ms = max(now_ms, self._latest_ms)
        records.update((QUEUE_LIMIT_KEY + queue, spent(limit, started_ms)) for queue, limit in queue_limits)
        records.update((UNIQUE_KEY + place, period) for place, period in self._periods.items() if period[1] > now_ms)
        records.update(
            (LIMIT_KEY + key, one) for key, one in self._limits.records(now_ms, self.controls.limits).items()
        )
        records.update((UNMET_KEY + child, (self.ended[child],)) for child in self.waits.unmet if child in self.ended)
        former = self.waits.former().items()
        records.update((FORMER_KEY + parent, children) for parent, children in former if parent not in self.jobs)
        ends = [(job.id, job.state.value, job.version) for job in self.ended.values()]
        for block, start in enumerate(range(0, len(ends), BLOCK_MAX)):
            records[f"{ENDED_KEY}{block}"] = tuple(ends[start : start + BLOCK_MAX])
        return records

    def _note_period(self, created: Job) -> None:
        if created.extras is not None and created.extras.unique is not None:
            until_ms = period_end_ms(created)
            if until_ms:
                self._periods[place_of(created)] = (created.id, until_ms)

    def _waits(self) -> Iterator[tuple[str, str, ContinueOn]]:
        yield from self.waits
        yield from (one for one in self.batches.waiting_for_jobs() if lane_of_job(one[1]) == self.number)
