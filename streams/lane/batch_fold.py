"""The batches of a lane, folded from events: their records, and what their jobs in the lane have come to.

What no event tells is which additions are complete. A batch that has all that was announced is taken for complete;
another one waits for a while (LaneRules.pending_ms), and goes on with what there is. Those that ended long ago are
left out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.states import AWAITING, ContinueOn, State
from joblog.streams.contract.timestamps import time_ms
from joblog.streams.lane.features.batch_records import (
    BATCH_KEY,
    PART,
    PLACES,
    WAITS,
    Batch,
    BatchWait,
    Counts,
    Part,
    is_open,
)
from joblog.streams.lane.output import StateValue
from msgspec import Struct, json

#: By default, batches that ended longer ago are not kept by any lane.
KEPT_MS: Final = 30 * 86_400_000

_spec: Final = json.Decoder(wire.JobSpec).decode


class _Told(Struct):
    """The last event of a batch, when it was written, and why it was cancelled."""

    event: wire.BatchEvent
    at_ms: int
    cancelled: str | None = None


class BatchFold:
    """What events of jobs and batches, of all lanes, say of the batches that concern lane `number`.

    - kept_ms: for how long batches are kept that ended.
    """

    def __init__(self, number: int, kept_ms: int = KEPT_MS) -> None:
        self.number, self._kept_ms = number, kept_ms
        self._told: dict[str, _Told] = {}
        #: Of each job of a batch: the batch, and the state that it is counted in.
        self._members: dict[str, tuple[str, State]] = {}
        self._created: Counter[tuple[str, int]] = Counter()
        #: Jobs that wait for a batch of this lane to end.
        self._waiting: dict[str, tuple[str, ContinueOn]] = {}

    def job(self, job_id: str, event: wire.JobEvent) -> bool:
        """A transition of a job; returns whether it waits for a batch."""
        if event.version == 1 and event.spec is not None:
            return self._created_job(job_id, event)
        member = self._members.get(job_id)
        if member is not None:
            self._members[job_id] = member[0], event.state
        if event.state is not AWAITING:
            self._waiting.pop(job_id, None)
        return False

    def _created_job(self, job_id: str, event: wire.JobEvent) -> bool:
        text = bytes(event.spec or b"")
        if b'"batch"' not in text:
            return False
        spec = _spec(text)
        batch, parent = spec.batch, spec.parent
        if batch is not None and self.number in {lane_of_job(job_id), lane_of_job(batch)}:
            self._members[job_id] = batch, event.state
            self._created[batch, lane_of_job(job_id)] += 1
        if parent is None or parent.kind is not ParentKind.BATCH:
            return False
        if event.state is AWAITING and parent.job_id != batch and lane_of_job(parent.job_id) == self.number:
            self._waiting[job_id] = parent.job_id, parent.on
        return True

    def batch(self, batch_id: str, event: wire.BatchEvent, at_ms: int) -> None:
        """An event of a batch."""
        before = self._told.get(batch_id)
        cancelled = before.cancelled if before is not None else None
        if event.cancelled and cancelled is None:
            cancelled = event.reason or ""
        self._told[batch_id] = _Told(event, at_ms, cancelled)

    def waiting_for_jobs(self) -> Iterator[tuple[str, str, ContinueOn]]:
        """The batches that wait for a job: the batch, the job, and how that has to end."""
        for batch_id, told in self._told.items():
            parent, on = told.event.parent, told.event.on
            if told.event.state is AWAITING and parent is not None and on is not None and parent not in self._told:
                yield batch_id, parent, on

    def records(self, now_ms: int) -> dict[str, StateValue]:
        """The records of `state` for these batches."""
        counts, waiting = self._counts(), self._waiting_by_batch()
        parts: defaultdict[str, dict[int, Counts]] = defaultdict(dict)
        for (batch_id, lane), count in counts.items():
            parts[batch_id][lane] = count
        records: dict[str, StateValue] = {}
        for batch_id, told in self._told.items():
            if lane_of_job(batch_id) == self.number and not self._is_forgotten(batch_id, now_ms):
                records[BATCH_KEY + batch_id] = _record(batch_id, told, parts[batch_id], now_ms)
                waits = {f"{BATCH_KEY}{batch_id}{WAITS}{child}": BatchWait(on) for child, on in waiting[batch_id]}
                records.update(waits)
        for (batch_id, lane), count in counts.items():
            if lane == self.number and not self._is_forgotten(batch_id, now_ms):
                part = records[f"{BATCH_KEY}{batch_id}{PART}"] = Part((*count[:5], now_ms))
                if (last := self._told.get(batch_id)) is not None:
                    part.is_started, part.cancelled = last.event.state is not AWAITING, last.cancelled
        return records

    def _is_forgotten(self, batch_id: str, now_ms: int) -> bool:
        told = self._told.get(batch_id)
        return told is not None and told.event.state in PLACES and now_ms - told.at_ms > self._kept_ms

    def _counts(self) -> dict[tuple[str, int], Counts]:
        """By batch and lane, as the reports of those lanes say it; theirs go on counting their own numbers."""
        made: dict[tuple[str, int], list[int]] = {key: [n, 0, 0, 0] for key, n in self._created.items()}
        inner = [
            (batch_id, told.event.batch, told.event.state)
            for batch_id, told in self._told.items()
            if told.event.batch is not None and self.number in {lane_of_job(batch_id), lane_of_job(told.event.batch)}
        ]
        for batch_id, outer, _ in inner:
            made.setdefault((outer, lane_of_job(batch_id)), [0, 0, 0, 0])[0] += 1
        for member, batch, state in (*((job, *known) for job, known in self._members.items()), *inner):
            if (place := PLACES.get(state)) is not None:
                made[batch, lane_of_job(member)][place] += 1
        return {key: (n[0], n[1], n[2], n[3], 0, 0) for key, n in made.items()}

    def _waiting_by_batch(self) -> defaultdict[str, list[tuple[str, ContinueOn]]]:
        """What waits for the end of each batch."""
        found: defaultdict[str, list[tuple[str, ContinueOn]]] = defaultdict(list)
        for child, (awaited, on) in self._waiting.items():
            found[awaited].append((child, on))
        for child, told in self._told.items():
            parent, how = told.event.parent, told.event.on
            if told.event.state is AWAITING and parent is not None and how is not None and parent != told.event.batch:
                found[parent].append((child, how))
        return found


def _record(batch_id: str, told: _Told, parts: dict[int, Counts], now_ms: int) -> Batch:
    event = told.event
    made = Batch(
        time_ms(event.created_at),
        is_created=True,
        description=event.description,
        outer=event.batch,
        parent=event.parent,
        on=event.on,
        waits=event.state is AWAITING,
        total=event.total,
        state=event.state,
        version=event.version,
        changed_ms=now_ms,
        state_ms=told.at_ms,
        event_ms=told.at_ms,
        cancelled=told.cancelled,
        parts=parts,
        additions=(batch_id,),
        shown=(event.created, event.succeeded, event.failed, event.deleted, event.total),
    )
    made.gave_up = made.counts[0] >= made.total
    if not made.gave_up:
        made.expected = {lane_of_job(batch_id): 1}
    if is_open(made):
        made.asking = tuple(sorted(parts))
    return made
