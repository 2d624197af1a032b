"""How the jobs of a lane come to their limits: the part of the feature that follows a job (limits.py says how)."""

from heapq import heappush
from typing import Any, ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import RATES, LimitKind
from joblog.streams.contract.states import ENQUEUED, PROCESSING
from joblog.streams.lane.extras import USES_LIMITS
from joblog.streams.lane.feature import Feature
from joblog.streams.lane.job import Job
from joblog.streams.lane.limits.claims import Claim, Elsewhere, id_of, limits_of
from joblog.streams.lane.limits.owner import AHEAD_MS, Owner
from joblog.streams.lane.limits.patience import Patience
from joblog.streams.lane.limits.post import ASKER_KEY, Post
from joblog.streams.lane.limits.rates import SKEW_MS
from joblog.streams.lane.limits.records import WAITS, Entry, LimitId
from joblog.streams.lane.limits.words import named, waits_for
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Held

LIMIT_KEY: Final = "limit:"


class LimitClaims(Feature):
    """What each job of a lane has got, and waits for; and the limits that the lane owns."""

    uses: ClassVar = USES_LIMITS

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.owner = Owner(pipeline.number)
        self.claims: dict[str, Claim] = {}
        self.elsewhere: dict[LimitId, Elsewhere] = {}
        self.post = Post(pipeline.number, pipeline.lanes, LIMIT_KEY + ASKER_KEY)
        self.patience = Patience()
        #: When jobs may start that have the permit of a rate ahead of its time.
        self._later: list[tuple[int, str]] = []

    # --- may a job start ---

    def may_start(self, job: Job, election: Election, out: LaneOutput) -> str | None:
        claim = self.claims.get(job.id)
        if claim is None:
            claim = self.claims[job.id] = Claim(job)
        waits = self._go_on(claim, job, election, out)
        self._hand_out(election, out)
        return waits

    def _go_on(self, claim: Claim, job: Job, election: Election, out: LaneOutput) -> str | None:
        """Take the limits that the job lacks; returns what it waits for, None if it has got all."""
        while (limit := claim.next) is not None:
            if not claim.is_waiting:
                claim.is_waiting = True
                if self._take(claim, limit, job, election, out):
                    continue
            return named(limit.kind, limit.key)
        if not claim.complete_ms:
            claim.complete_ms = max(election.now_ms, claim.from_ms)
            self.patience.begin(claim)
        if claim.from_ms > election.now_ms:
            heappush(self._later, (claim.from_ms, job.id))
            return "waits for its time"
        return None

    def _take(self, claim: Claim, limit: wire.Limit, job: Job, election: Election, out: LaneOutput) -> bool:
        """Get one limit; False if the job has to wait."""
        known = id_of(limit)
        if not self.post.is_own(limit):
            other = self.elsewhere.get(known)
            if other is None:
                other = self.elsewhere[known] = Elsewhere(limit)
            other.limit = limit
            other.add(job, limit.tenant)
            self._ask_for(other, job, out)
            if other.waits_for is None:
                other.untold[job.id] = None
            elif job.id not in other.asked:
                self._tell(job, other.waits_for, election, out)
            return False
        entry = Entry(*known, job.id, 0, 0, limit.tenant, job.priority, job.created_ms)
        self.owner.ask(limit, entry, election.now_ms)
        if entry.status == WAITS:
            self._tell(job, self._waits_for(known), election, out)
            return False
        self.owner.granted.remove(entry)
        self._got(claim, entry.kind, entry.from_ms, election.now_ms, out)
        return True

    def _got(self, claim: Claim, kind: LimitKind, from_ms: int, now_ms: int, out: LaneOutput) -> None:
        claim.got += 1
        claim.is_waiting = False
        claim.from_ms = max(claim.from_ms, min(from_ms, now_ms + SKEW_MS + AHEAD_MS))
        out.counts["joblog_limit_grants_total", kind] += 1

    def _hand_out(self, election: Election, out: LaneOutput) -> None:
        """Pass on what the owner in this lane has granted."""
        granted = self.owner.granted
        while granted:
            entry = granted.popleft()
            if not self.owner.has_granted(entry):  # it was given back at once
                continue
            lane = lane_of_job(entry.job_id)
            if lane == self.pipeline.number:
                self._granted(entry.job_id, entry.kind, entry.from_ms, election, out)
                continue
            answer = wire.LimitGranted(
                job_id=entry.job_id,
                kind=entry.kind,
                key=entry.key,
                epoch=entry.epoch,
                ask=entry.ask,
                from_ms=entry.from_ms,
            )
            out.reports.append((lane, entry.job_id, answer))

    def _granted(self, job_id: str, kind: LimitKind, from_ms: int, election: Election, out: LaneOutput) -> None:
        """A job that was held back got the limit that it waited for."""
        claim = self.claims[job_id]
        self._got(claim, kind, from_ms, election.now_ms, out)
        if self._go_on(claim, self.pipeline.store.jobs[job_id], election, out) is None:
            self._release(job_id)

    def _release(self, job_id: str) -> None:
        """Let a job go to its place in its queue."""
        self.pipeline.store.release(job_id)
        self.pipeline.store.has_released = True

    def _tell(self, job: Job, what: str, election: Election, out: LaneOutput) -> None:
        """Write what a job waits for, once."""
        job = self.pipeline.store.jobs[job.id]
        if job.extras is not None and not job.extras.is_held:
            self.pipeline.apply(job, Held(what), f"{job.id}/{job.version}", election, out)

    # --- what becomes of a job ---

    def moved(self, before: Job | None, job: Job, what: Any, election: Election, out: LaneOutput) -> None:
        if before is None:
            return
        if before.state is ENQUEUED:
            if job.state is PROCESSING:
                self._started(job, election, out)
            elif job.state is not ENQUEUED:
                self._withdraw(job.id, election, out)
                self.patience.forget(job.id)
            elif before.priority != job.priority and (claim := self.claims.get(job.id)) is not None:
                self._place(claim, job)
        elif before.state is PROCESSING and job.state is not PROCESSING:
            for limit in limits_of(job):
                if limit.kind not in RATES:
                    self._let_go(limit, job.id, election, out)
        self._hand_out(election, out)

    def _started(self, job: Job, election: Election, out: LaneOutput) -> None:
        self.claims.pop(job.id, None)
        self.patience.forget(job.id)
        now_ms = election.now_ms
        for limit in limits_of(job):
            if self.post.is_own(limit):
                self.owner.started(limit, job.id, now_ms, now_ms)
            else:
                self.post.send(limit, wire.LimitStarted(job_id=job.id, limit=limit, at_ms=now_ms), out)

    def _withdraw(self, job_id: str, election: Election, out: LaneOutput) -> None:
        """Give back what a job has got, and wait no more."""
        claim = self.claims.pop(job_id, None)
        if claim is None:
            return
        self.patience.end(job_id)
        for limit in claim.permits:
            self._let_go(limit, job_id, election, out)
        if (waits := claim.next) is not None and claim.is_waiting:
            self._leave(waits, job_id, election, out)

    def _leave(self, limit: wire.Limit, job_id: str, election: Election, out: LaneOutput) -> None:
        """Wait no more."""
        other = self.elsewhere.get(id_of(limit))
        if other is None:
            self.owner.release(id_of(limit), job_id, election.now_ms)
            return
        other.untold.pop(job_id, None)
        if not other.line.remove(job_id):
            del other.asked[job_id]
            self._let_go(limit, job_id, election, out)
        self._ask_for(other, None, out)

    def _let_go(self, limit: wire.Limit, job_id: str, election: Election, out: LaneOutput) -> None:
        """Tell a limit's owner that the job does not have it any more."""
        if self.post.is_own(limit):
            self.owner.release(id_of(limit), job_id, election.now_ms)
        else:
            self.post.send(limit, wire.LimitReleased(job_id=job_id, kind=limit.kind, key=limit.key), out)

    def _place(self, claim: Claim, job: Job) -> None:
        """The priority of a job has changed."""
        limit = claim.next
        if limit is None or not claim.is_waiting:
            return
        if self.post.is_own(limit):
            self.owner.place(id_of(limit), job.id, job.priority, job.created_ms)
        elif job.id in (other := self.elsewhere[id_of(limit)]).line:
            other.add(job, limit.tenant)

    def _ask_for(self, other: Elsewhere, job: Job | None, out: LaneOutput) -> None:
        """Let those ask who are first in this lane."""
        while (job_id := other.next(job)) is not None:
            asking = self.pipeline.store.jobs[job_id]
            other.asked[job_id] = (self.post.ask(other.limit, asking, out), asking)
        if not other:
            self.elsewhere.pop(id_of(other.limit), None)

    def _give_back(self, election: Election, out: LaneOutput) -> None:
        """Give back permits with which no worker started the job in time.

        Others of its queue that wait here for the same limits would fare like it: they ask again when there is room.
        """
        for claim in self.patience.late(election.now_ms):
            if claim.job_id in self.patience:
                out.counts["joblog_limit_permits_returned_total",] += 1
                alike = self._waiting_alike(claim, self.pipeline.store.jobs[claim.job_id].queue)
                self._withdraw(claim.job_id, election, out)
                for job_id in alike:
                    self._withdraw(job_id, election, out)
                    self._release(job_id)

    def _waiting_alike(self, claim: Claim, queue: str) -> list[str]:
        """The jobs of this queue that wait in this lane for a limit of the claim."""
        jobs, found = self.pipeline.store.jobs, []
        for limit in map(id_of, claim.limits):
            shared, other = self.owner.get(limit), self.elsewhere.get(limit)
            waiting = (*(shared.line if shared else ()), *(other.jobs() if other else ()))
            found += [job_id for job_id in waiting if job_id in jobs and jobs[job_id].queue == queue]
        return found

    def _waits_for(self, limit: LimitId) -> str:
        shared = self.owner.get(limit)
        return waits_for(limit, shared.holding if shared is not None else ())
