"""Limits: mutexes, semaphores and rates by key, shared by the jobs of all lanes.

Theory of operation. A job is asked for its limits when a worker has room for it (`may_start`). It is held back, so
it takes no slot, until it has got all of them; then it goes back to its place in its queue, and starts there. Each
limit is owned by one lane (limits/owner.py), which gives out permits; a job whose limits live in its own lane gets
them at once, without a report, if they are free. What a job got is given back in the turn in which it leaves
Processing, or when it is deleted or moved while it waits, or when no worker took it in time (limits/patience.py), so
that it does not block others.

A lane that is loaded anew has forgotten what it asked of others (limits/post.py); jobs ask again when a worker has
room. An owner that was rebuilt from events, or that goes on without reports that were lost, has them all ask again
(`LimitsRebuilt`).
"""

from collections.abc import Iterable, Mapping
from heapq import heappop
from typing import Any, ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import RATES, LimitScope
from joblog.streams.contract.states import PROCESSING
from joblog.streams.lane.feature import CommandHandler, ReportHandler
from joblog.streams.lane.features.limit_claims import LIMIT_KEY, LimitClaims
from joblog.streams.lane.features.queue_limits import set_queue_limit
from joblog.streams.lane.job import Job
from joblog.streams.lane.limits.claims import Elsewhere, id_of, limits_of, owner_of
from joblog.streams.lane.limits.post import Asker
from joblog.streams.lane.limits.records import WAITS, Definition, Entry, LimitId, Silence
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Rejection
from msgspec import msgpack

#: How often an owner asks lanes which of their jobs run: what it asks may be among reports that were lost.
AGAIN_MS: Final = 60_000


class Limits(LimitClaims):
    """The limits of a lane's jobs, and those that the lane owns."""

    prefix: ClassVar = LIMIT_KEY
    decoder: ClassVar = msgpack.Decoder(Entry | Definition | Silence | Asker)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        #: When lanes that have not said which of their jobs run are asked again, by the elector's monotonic clock.
        self._again_ms = 0
        self._has_lost_reports = False
        #: Limits of other lanes for which jobs wait that are still to be told so.
        self._untold: set[LimitId] = set()

    # --- loading ---

    def reports_lost(self) -> None:
        self._has_lost_reports = True

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        if isinstance(value, Asker):
            self.post.load(value)
        else:
            self.owner.load(value)

    def found(self, job: Job, clock_ms: int) -> None:
        if job.state is PROCESSING:
            for limit in limits_of(job):
                if limit.kind not in RATES and self.post.is_own(limit):
                    self.owner.started(limit, job.id, 0, 0)

    def loaded(self, clock_ms: int) -> None:
        self.owner.loaded()
        self._again_ms = clock_ms

    # --- commands ---

    def commands(self) -> Mapping[type, CommandHandler]:
        return {wire.SetLimit: self._set}

    def _set(self, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
        said = received.command
        assert isinstance(said, wire.SetLimit)
        if said.scope is LimitScope.QUEUE:
            return set_queue_limit(self.pipeline, received, said, election, out)
        limit = (said.kind, said.key)
        owner = owner_of(limit, self.pipeline.lanes)
        if owner != self.pipeline.number:
            return Rejection("wrong_lane", f"lane {owner} owns the limit, and not lane {self.pipeline.number}")
        interval_ms = 0 if said.interval_s is None else max(round(said.interval_s * 1000), 1)
        self.owner.set(limit, said.capacity or 0, interval_ms, election.now_ms)
        event = wire.LimitChanged(
            said.kind, said.key, said.capacity, said.interval_s, said.scope, said.by, said.reason
        )
        name = f"{said.kind}:{said.key}"
        out.events.append((name, "limit.changed", f"{received.id}/limit.changed", event, received.id, None))
        self._hand_out(election, out)
        return None

    # --- what lanes report to each other ---

    def reports(self) -> Mapping[type, ReportHandler]:
        return {
            wire.LimitAsked: self._on_asked,
            wire.LimitStarted: self._on_started,
            wire.LimitReleased: self._on_released,
            wire.LimitGranted: self._on_granted,
            wire.LimitWaits: self._on_waits,
            wire.LimitsForgotten: self._on_forgotten,
            wire.LimitsRebuilt: self._on_rebuilt,
        }

    def _on_asked(self, report: wire.LimitAsked, _cause: str, election: Election, out: LaneOutput) -> None:
        known = id_of(report.limit)
        if not self._is_from_elsewhere(report.limit, report.job_id):
            self._is_stale(report, out)
            return
        question, place = (report.epoch, report.ask), (report.priority, report.created_ms)
        entry = Entry(*known, report.job_id, *question, report.limit.tenant, *place)
        self.owner.ask(report.limit, entry, election.now_ms)
        if entry.status == WAITS:
            answer = wire.LimitWaits(
                job_id=report.job_id,
                kind=report.limit.kind,
                key=report.limit.key,
                epoch=report.epoch,
                ask=report.ask,
                waits_for=self._waits_for(known),
            )
            out.reports.append((lane_of_job(report.job_id), report.job_id, answer))
        self._hand_out(election, out)

    def _on_started(self, report: wire.LimitStarted, _cause: str, election: Election, out: LaneOutput) -> None:
        if not self._is_from_elsewhere(report.limit, report.job_id):
            self._is_stale(report, out)
            return
        self.owner.started(report.limit, report.job_id, report.at_ms, election.now_ms)
        self._hand_out(election, out)

    def _on_released(self, report: wire.LimitReleased, _cause: str, election: Election, out: LaneOutput) -> None:
        is_own = lane_of_job(report.job_id) == self.pipeline.number
        if is_own or not self.owner.release((report.kind, report.key), report.job_id, election.now_ms):
            self._is_stale(report, out)
        self._hand_out(election, out)

    def _on_granted(self, report: wire.LimitGranted, _cause: str, election: Election, out: LaneOutput) -> None:
        other = self._asked(report, out)
        if other is not None:
            del other.asked[report.job_id]
            other.untold.pop(report.job_id, None)
            self._ask_for(other, None, out)
            self._granted(report.job_id, report.kind, report.from_ms, election, out)
            self._hand_out(election, out)

    def _on_waits(self, report: wire.LimitWaits, _cause: str, election: Election, out: LaneOutput) -> None:
        other = self._asked(report, out)
        if other is not None:
            other.waits_for = report.waits_for
            other.untold[report.job_id] = None
            self._tell_untold(other, report.waits_for, election, out)

    def _tell_untold(self, other: Elsewhere, waits_for: str, election: Election, out: LaneOutput) -> None:
        """Write what these jobs wait for: as many as the transaction takes, the others in the next turns."""
        untold, limit = other.untold, id_of(other.limit)
        for job_id in tuple(untold):
            if out.budget.is_spent:
                self._untold.add(limit)
                return
            del untold[job_id]
            self._tell(self.pipeline.store.jobs[job_id], waits_for, election, out)
        self._untold.discard(limit)

    def _tell_more(self, election: Election, out: LaneOutput) -> None:
        """Go on with those that are still to be told."""
        for limit in tuple(self._untold):
            other = self.elsewhere.get(limit)
            if other is None or other.waits_for is None:  # nobody waits any more, or others that have just come
                self._untold.discard(limit)
            else:
                self._tell_untold(other, other.waits_for, election, out)

    def _asked(self, report: wire.LimitGranted | wire.LimitWaits, out: LaneOutput) -> Elsewhere | None:
        """Whose question a report answers, if it is still open. Its owner hears of all others that they are void."""
        other = self.elsewhere.get((report.kind, report.key))
        asked = other.asked.get(report.job_id) if other is not None else None
        if asked is None or not self.post.is_open(report, asked[0]):
            self._is_stale(report, out)
            return None
        return other

    def _is_from_elsewhere(self, limit: wire.Limit, job_id: str) -> bool:
        """Whether this lane owns the limit, and the job is another lane's: its own jobs do not ask by reports."""
        return self.post.is_own(limit) and lane_of_job(job_id) != self.pipeline.number

    def _is_stale(self, report: wire.Report, out: LaneOutput) -> None:
        out.counts["joblog_stale_reports_total", str(type(report).__struct_config__.tag)] += 1

    def _on_forgotten(self, report: wire.LimitsForgotten, _cause: str, election: Election, out: LaneOutput) -> None:
        if report.lane == self.pipeline.number:
            self._is_stale(report, out)
            return
        self.owner.reset(report.lane, report.rebuild, election.now_ms)
        self._hand_out(election, out)

    def _on_rebuilt(self, report: wire.LimitsRebuilt, _cause: str, election: Election, out: LaneOutput) -> None:
        """An owner knows nothing of this lane's jobs: tell it which run, withdraw all others, and ask again."""
        if report.lane == self.pipeline.number:
            self._is_stale(report, out)
            return
        for job_id, claim in tuple(self.claims.items()):
            asked = claim.limits[: claim.got + claim.is_waiting]
            if any(self.post.is_owned_by(report.lane, limit) for limit in asked):
                self._withdraw(job_id, election, out)
                self._release(job_id)
        for job in self.pipeline.store.jobs.values():
            if job.state is PROCESSING and job.extras is not None:
                for limit in limits_of(job):
                    if limit.kind not in RATES and self.post.is_owned_by(report.lane, limit):
                        self.post.send(limit, wire.LimitStarted(job_id=job.id, limit=limit, at_ms=0), out)
        self.post.forget(out)
        self.post.withdraw(report.lane, out, report.rebuild)
        self._hand_out(election, out)

    # --- time ---

    def wakes_ms(self) -> int | None:
        later, wake_ms = self._later, self.owner.wake_ms
        if later and (wake_ms is None or later[0][0] < wake_ms):
            return later[0][0]
        return wake_ms

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        self.post.forget(out)
        if self._has_lost_reports:
            self._has_lost_reports = False
            self.owner.ask_who_runs(election.now_ms)
            self._ask_again(range(self.pipeline.lanes), election, out)
        elif self.owner.silent and election.clock_ms >= self._again_ms:
            self._ask_again(self.owner.silent, election, out)
        self.owner.wake(election.now_ms)
        while self._later and self._later[0][0] <= election.now_ms:
            self._release(heappop(self._later)[1])
        self._give_back(election, out)
        self._tell_more(election, out)
        self._hand_out(election, out)
        self._flush(out)

    def _ask_again(self, lanes: Iterable[int], election: Election, out: LaneOutput) -> None:
        """Let the jobs of these lanes ask for the limits of this one again, and hear which of them run."""
        number, rebuild = self.pipeline.number, self.owner.rebuild
        self._again_ms = election.clock_ms + AGAIN_MS
        for lane in sorted(set(lanes) - {number}):
            out.reports.append((lane, str(lane), wire.LimitsRebuilt(lane=number, rebuild=rebuild)))

    def turn_ended(self, out: LaneOutput) -> None:
        self._flush(out)

    def _flush(self, out: LaneOutput) -> None:
        for key, value in self.owner.flush().items():
            out.state[LIMIT_KEY + key] = value
