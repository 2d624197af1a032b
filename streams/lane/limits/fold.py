"""What a lane has to remember of limits, folded from the events of all lanes: for the day when its `state` is lost.

Who runs with a limit that the lane owns is not folded: the lanes of those jobs know, and say so when the owner tells
them that it was rebuilt. It grants nothing before. Nor is what was asked: jobs ask again.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import RATES
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.lane.job import is_transition
from joblog.streams.lane.limits.claims import id_of, in_order, owner_of
from joblog.streams.lane.limits.post import ASKER_KEY, Asker
from joblog.streams.lane.limits.rates import rate
from joblog.streams.lane.limits.records import SILENCE_KEY, Definition, LimitId, Silence, interval_ms_of, limit_key
from msgspec import Struct, json

_spec: Final = json.Decoder(wire.JobSpec).decode
#: Starts of a rate that are kept beyond those that count, before they are sorted.
STARTS_MIN: Final = 1_000


class LimitsFold:
    """The limits of lane `number` of `lanes`, event by event; of `kept` ended jobs it still knows the limits."""

    def __init__(self, number: int, lanes: int, kept: int) -> None:
        self._number, self._lanes, self._kept = number, lanes, kept
        self._limits: dict[str, tuple[wire.Limit, ...]] = {}
        self._ended: OrderedDict[str, tuple[wire.Limit, ...]] = OrderedDict()
        #: Lanes whose jobs use limits that this lane owns, and lanes that own limits which its jobs use.
        self._askers: set[int] = set()
        self._owners: set[int] = set()
        self._starts: dict[LimitId, tuple[wire.Limit, list[int]]] = {}

    def apply(self, job_id: str, event: wire.JobEvent, at_ms: int) -> None:
        """One event of a job, of whatever lane; `at_ms` is when it was written."""
        if event.version == 1 and event.spec is not None and b'"limits"' in bytes(event.spec):
            self._limits[job_id] = in_order(_spec(event.spec).limits)
            self._note(job_id)
        if not is_transition(event) or (job_id not in self._limits and job_id not in self._ended):
            return
        limits = self._limits.pop(job_id, ()) or self._ended.pop(job_id, ())
        if event.state is State.PROCESSING:
            for limit in limits:
                self._started(limit, at_ms)
        if event.state in FINAL_STATES and not event.traversed:
            self._ended[job_id] = limits
            if len(self._ended) > self._kept:
                self._ended.popitem(last=False)
        else:
            self._limits[job_id] = limits

    def records(self, now_ms: int, changed: Mapping[LimitId, wire.LimitChanged]) -> dict[str, Struct]:
        """The records of this lane; `changed` is how limits were last set."""
        definitions = self._definitions(now_ms)
        for limit, event in changed.items():
            if event.capacity is not None:
                interval_ms = 0 if event.interval_s is None else max(round(event.interval_s * 1000), 1)
                known = definitions.setdefault(limit, Definition(*limit, event.capacity, max(interval_ms, 1)))
                known.set_capacity, known.set_interval_ms = event.capacity, interval_ms
        found: dict[str, Struct] = {limit_key(limit): known for limit, known in definitions.items()}
        if self._askers:
            found[SILENCE_KEY] = Silence(tuple(sorted(self._askers)), now_ms)
        if self._owners:  # an epoch that no lane has reached by counting
            found[ASKER_KEY] = Asker(now_ms, tuple(sorted(self._owners)))
        return found

    def _definitions(self, now_ms: int) -> dict[LimitId, Definition]:
        """The rates that still count."""
        found: dict[LimitId, Definition] = {}
        for limit, (defined, starts) in self._starts.items():
            interval_ms = interval_ms_of(defined)
            counted = rate(defined.kind)
            counted.define(defined.capacity, interval_ms)
            for at_ms in sorted(starts)[-2 * defined.capacity :]:
                counted.started(at_ms, False)
            if counted.idle_ms() > now_ms:
                known = (defined.capacity, interval_ms)
                found[limit] = Definition(*limit, *known, rate=counted.record())
        return found

    def _note(self, job_id: str) -> None:
        lane = lane_of_job(job_id)
        for limit in self._limits[job_id]:
            owner = owner_of(id_of(limit), self._lanes)
            if owner != lane and self._number == owner:
                self._askers.add(lane)
            elif owner != lane and self._number == lane:
                self._owners.add(owner)

    def _started(self, limit: wire.Limit, at_ms: int) -> None:
        if limit.kind not in RATES or owner_of(id_of(limit), self._lanes) != self._number:
            return
        _, starts = self._starts.get(id_of(limit), (limit, []))
        starts.append(at_ms)
        if len(starts) > STARTS_MIN + 4 * limit.capacity:
            starts = sorted(starts)[-2 * limit.capacity :]
        self._starts[id_of(limit)] = (limit, starts)
