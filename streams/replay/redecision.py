"""Decides every event of a log anew, by the rules of today, and says where another one comes out."""

from collections import OrderedDict
from collections.abc import Iterable
from datetime import timedelta
from typing import Final, NamedTuple

from joblog.streams.contract import wire
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.lane.filters import FilterChain
from joblog.streams.lane.job import Job, evolve, first_event, new_job, revived
from joblog.streams.lane.transitions import Election, Rejection, decide, elected_first
from joblog.streams.replay.inputs import creation_of, input_of
from joblog.streams.replay.stored import ReadEvent, StoredEvent
from msgspec import Raw, json

#: Ended jobs that are kept for a command that revives them.
KEPT: Final = 30_000

_spec: Final = json.Decoder(wire.JobSpec).decode
_parameters: Final = json.Decoder(dict[str, Raw]).decode


class Difference(NamedTuple):
    """An event that is decided otherwise now, or that no input explains."""

    job_id: str
    version: int
    what: str


class Redecision:
    """The jobs of one lane, whose events are taken in their order.

    A Failed job that a command moves may have been at hand, or forgotten and revived from a snapshot, which no event
    tells: then both are possible until one of them does not fit.

    - decided: events that came out the same; undecided: those of jobs whose beginning was not seen or is forgotten.
    """

    def __init__(self, chain: FilterChain, kept: int = KEPT) -> None:
        self._chain = chain
        self._kept = kept
        self._live: dict[str, tuple[Job, ...]] = {}
        self._ended: OrderedDict[str, tuple[Job, ...]] = OrderedDict()
        #: Failures that a filter replaced: the event that it elected instead comes next.
        self._traversed: dict[str, StoredEvent] = {}
        self.decided = 0
        self.undecided = 0

    def take(self, stored: StoredEvent) -> Difference | None:
        """The next event; returns how it differs from what is decided now."""
        event = stored.event
        if event.version == 1 and event.created_with is not None:
            return self._begin(stored, event.created_with)
        before = self._live.get(stored.job_id) or self._ended.pop(stored.job_id, None)
        if before is None:
            self.undecided += 1
            return None
        if event.traversed:
            self._traversed[stored.job_id] = stored
            return None
        first = self._traversed.pop(stored.job_id, None)
        return self._go_on(before, (stored,) if first is None else (first, stored))

    def _begin(self, stored: StoredEvent, spec: bytes) -> Difference | None:
        job_id, event, at_ms, _ = stored
        election = self._election(at_ms)
        create = creation_of(job_id, event, spec)
        made = first_event(create, spec, at_ms)
        if made.state in self._chain.watched:
            made = elected_first(job_id, made, create, election)
        self._ended.pop(job_id, None)
        self._traversed.pop(job_id, None)
        self._keep((new_job(job_id, event, spec, create.priority, at_ms, create),))
        return self._compared(job_id, (event,), (made,))

    def _go_on(self, before: tuple[Job, ...], events: tuple[StoredEvent, ...]) -> Difference | None:
        job_id = events[0].job_id
        recorded = tuple(one.event for one in events)
        after, differences = [], []
        for job in _possible(before):
            difference = self._decided(job, events, recorded)
            if difference is None:
                after.append(_evolved(job, events))
            else:
                differences.append(difference)
        if after:
            self.decided += len(events)
            self._keep(tuple(after))
            return None
        self._keep((_evolved(before[0], events),))
        return differences[0]._replace(job_id=job_id)

    def _decided(
        self, job: Job, events: tuple[StoredEvent, ...], recorded: tuple[ReadEvent, ...]
    ) -> Difference | None:
        job_id, event, at_ms, cause = events[0]
        what = input_of(job, event, cause)
        if what is None:
            return Difference(job_id, event.version, f"no input leads to {event.state} from {job.state}")
        decision = decide(job, what, self._election(at_ms))
        if isinstance(decision, Rejection):
            return Difference(job_id, event.version, f"{type(what).__name__} is refused now: {decision.reason}")
        return _difference(job_id, recorded, decision)

    def _compared(
        self, job_id: str, recorded: tuple[ReadEvent, ...], decided: tuple[wire.JobEvent, ...]
    ) -> Difference | None:
        difference = _difference(job_id, recorded, decided)
        if difference is None:
            self.decided += len(recorded)
        return difference

    def _keep(self, jobs: tuple[Job, ...]) -> None:
        job = jobs[0]
        if job.state in FINAL_STATES and job.state is not State.FAILED:
            self._live.pop(job.id, None)
            self._ended[job.id] = jobs
            if len(self._ended) > self._kept:
                self._ended.popitem(last=False)
        else:
            self._live[job.id] = jobs

    def _election(self, now_ms: int) -> Election:
        return Election(now_ms, 0, self._chain.elect, self._chain.watched)


def differences(events: Iterable[StoredEvent], chain: FilterChain) -> list[Difference]:
    """What is decided otherwise in the events of one lane, from its beginning."""
    lane = Redecision(chain)
    return [found for event in events if (found := lane.take(event)) is not None]


def _possible(jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """What the jobs may be when their next input comes: as they are, or revived from a snapshot."""
    if jobs[0].state not in FINAL_STATES:
        return jobs
    return (*jobs, *(_from_snapshot(job) for job in jobs))


def _from_snapshot(job: Job) -> Job:
    created_at = EPOCH + timedelta(milliseconds=job.created_ms)
    known = job.version, job.state, job.attempt, job.task, job.queue, created_at
    return revived(job.id, wire.Snapshot(*known, _spec(job.spec), _parameters(job.parameters), job.priority))


def _evolved(job: Job, events: tuple[StoredEvent, ...]) -> Job:
    for stored in events:
        job = evolve(job, stored.event, stored.at_ms)
    return job


def _difference(
    job_id: str, recorded: tuple[ReadEvent, ...], decided: tuple[wire.JobEvent, ...]
) -> Difference | None:
    """Where the events differ, field by field."""
    if len(recorded) != len(decided):
        states = [", ".join(str(one.state) for one in events) for events in (recorded, decided)]
        return Difference(job_id, recorded[0].version, f"recorded as {states[0]}, decided as {states[1]}")
    for was, now in zip(recorded, decided, strict=True):
        for name in wire.JobEvent.__struct_fields__:
            old, new = getattr(was, name), getattr(now, name)
            if name == "spec":
                old, new = was.created_with, None if new is None else bytes(new)
            if old != new:
                return Difference(job_id, was.version, f"{name} was {old!r:.200}, is decided as {new!r:.200}")
    return None
