"""The owner of keys: who waits for each, who has a permit, and who is next.

Each limit (kind, key) has one owner: the lane that a hash of it names. Jobs of that lane are asked for directly,
those of others by reports, which come in the order in which their lane wrote them. A permit goes to a job, and stays
until the job's lane says that it started (a rate needs no more), or gives it back.

What a lane says of its jobs always holds: whatever it asked for before a later message of the same job is void. So an
owner that loads again what it has written, or a lane that forgot what it asked for, need no agreement.

Records: one for each limit that has something to remember (`limit:k:...`), and one for each job of another lane that
waits or has a permit (`limit:e:...`). Of the lane's own jobs nothing is written: those that run are in their records,
and the others ask again.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.lane.limits.line import place_of
from joblog.streams.lane.limits.rates import Rate
from joblog.streams.lane.limits.records import (
    GRANTED,
    SILENCE_KEY,
    STARTED,
    WAITS,
    Definition,
    Entry,
    LimitId,
    Silence,
    entry_key,
    interval_ms_of,
    limit_key,
)
from joblog.streams.lane.limits.shared import Shared
from msgspec import Struct

#: A job of another lane gets the permit of a rate so long before its time, so that it is there in time.
AHEAD_MS: Final = 500


class Owner:
    """The limits that lane `number` owns.

    - granted: the jobs that got a permit since this was last emptied. changed: the records to be written.
    - silent: the lanes of which a rebuilt owner still has to hear.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._shared: dict[LimitId, Shared] = {}
        self._dirty: set[LimitId] = set()
        self._wakes: list[tuple[int, LimitId]] = []
        self._resting: list[tuple[int, LimitId]] = []
        self.granted: deque[Entry] = deque()
        self.changed: dict[str, Struct | None] = {}
        self.silent: set[int] = set()
        self.rebuild = 0

    def __len__(self) -> int:
        return len(self._shared)

    def limits(self) -> Iterator[tuple[LimitId, Shared]]:
        """All limits that are known."""
        return iter(tuple(self._shared.items()))

    def get(self, limit: LimitId) -> Shared | None:
        """What is known of one limit."""
        return self._shared.get(limit)

    def has_granted(self, entry: Entry) -> bool:
        """Whether this permit is still out."""
        shared = self._shared.get(entry.limit)
        return shared is not None and shared.entries.get(entry.job_id) is entry and entry.status != WAITS

    # --- loading ---

    def load(self, value: Entry | Definition | Silence) -> None:
        """Load a record; entries may come before the limit that they are for."""
        if isinstance(value, Silence):
            self.silent, self.rebuild = set(value.lanes), value.rebuild
        elif isinstance(value, Definition):
            limit = (value.kind, value.key)
            before = self._shared.get(limit)
            shared = self._shared[limit] = Shared(value)
            shared.is_written = True
            for entry in before.entries.values() if before is not None else ():
                self._take_in(shared, entry)
        else:
            self._take_in(self._known(value.limit, 1, 1), value)

    def loaded(self) -> None:
        """Called when all is loaded: those that nobody waits for any more will be dropped."""
        for limit, shared in self.limits():
            self._rest(limit, shared)
            if shared.line:
                heappush(self._wakes, (0, limit))

    def _take_in(self, shared: Shared, entry: Entry) -> None:
        shared.entries[entry.job_id] = entry
        if entry.status == WAITS:
            shared.line.add(entry.tenant, place_of(entry.priority, entry.created_ms, entry.job_id))
            return
        shared.holding[entry.job_id] = None
        if shared.rate is not None:
            shared.rate.reserve_again()

    def _known(self, limit: LimitId, capacity: int, interval_ms: int) -> Shared:
        shared = self._shared.get(limit)
        if shared is None:
            shared = self._shared[limit] = Shared(Definition(*limit, capacity, interval_ms))
        return shared

    # --- what lanes say ---

    def ask(self, limit: wire.Limit, entry: Entry, now_ms: int) -> None:
        """A job waits for a permit from now on; `granted` says if it got it at once."""
        shared = self._known(entry.limit, limit.capacity, interval_ms_of(limit))
        if shared.define(limit.capacity, interval_ms_of(limit)):
            self._dirty.add(entry.limit)
        before = shared.entries.get(entry.job_id)
        if before is not None and before.status == STARTED:
            before.epoch, before.ask = (
                entry.epoch,
                entry.ask,
            )  # it holds the limit already: it does not wait for itself
            self.granted.append(before)
            self._write(before)
            return
        if before is not None:
            self._drop(shared, before)
            shared = self._known(entry.limit, limit.capacity, interval_ms_of(limit))
        shared.entries[entry.job_id] = entry
        shared.line.add(entry.tenant, place_of(entry.priority, entry.created_ms, entry.job_id))
        self._write(entry)
        self.settle(entry.limit, now_ms)

    def started(self, limit: wire.Limit, job_id: str, at_ms: int, now_ms: int) -> None:
        """A job started with its permit, by an event of this time."""
        known = (limit.kind, limit.key)
        shared = self._known(known, limit.capacity, interval_ms_of(limit))
        entry = shared.entries.get(job_id)
        if shared.rate is not None:
            is_reserved = entry is not None and entry.status == GRANTED
            if entry is not None:
                self._forget(shared, entry)
            shared.rate.started(at_ms, is_reserved)
            self._dirty.add(known)
            self._rest(known, shared)
            self.settle(known, now_ms)
            return
        if entry is None:  # this owner was rebuilt meanwhile, or loads its own running jobs
            entry = Entry(limit.kind, limit.key, job_id)
            shared.entries[job_id] = entry
        if entry.status == WAITS:
            shared.line.remove(job_id)
            shared.holding[job_id] = None
        entry.status = STARTED
        self._write(entry)

    def release(self, limit: LimitId, job_id: str, now_ms: int) -> bool:
        """A job no longer waits for the limit, does not use its permit, or has ended; False if nothing is known."""
        shared = self._shared.get(limit)
        entry = shared.entries.get(job_id) if shared is not None else None
        if shared is None or entry is None:
            return False
        self._drop(shared, entry)
        self.settle(limit, now_ms)
        return True

    def place(self, limit: LimitId, job_id: str, priority: int, created_ms: int) -> None:
        """The priority of a job that waits has changed."""
        shared = self._shared.get(limit)
        entry = shared.entries.get(job_id) if shared is not None else None
        if shared is not None and entry is not None and entry.priority != priority and entry.status == WAITS:
            entry.priority = priority
            shared.line.add(entry.tenant, place_of(priority, created_ms, job_id))
            self._write(entry)

    def reset(self, lane: int, rebuild: int, now_ms: int) -> None:
        """A lane has forgotten what it asked for: drop its jobs that have not started.

        If it says so as an answer to this owner's rebuild, it has also said before which of its jobs run.
        """
        for limit, shared in self.limits():
            for entry in tuple(shared.entries.values()):
                if entry.status != STARTED and lane_of_job(entry.job_id) == lane:
                    self._drop(shared, entry)
            self.settle(limit, now_ms)
        if lane in self.silent and rebuild == self.rebuild:
            self.silent.discard(lane)
            self.changed[SILENCE_KEY] = Silence(tuple(sorted(self.silent)), rebuild) if self.silent else None
            if not self.silent:
                for limit, _ in self.limits():
                    self.settle(limit, now_ms)

    def ask_who_runs(self, now_ms: int) -> None:
        """Forget the jobs of other lanes, and grant nothing before these have said which of them run."""
        lanes = set()
        for _, shared in self.limits():
            for entry in tuple(shared.entries.values()):
                if self._is_own(entry):
                    continue
                if entry.status != WAITS:
                    lanes.add(lane_of_job(entry.job_id))
                if entry.status == GRANTED and shared.rate is not None:  # it may have started
                    shared.rate.started(max(now_ms, entry.from_ms), True)
                    self._dirty.add(entry.limit)
                    self._forget(shared, entry)
                    self._rest(entry.limit, shared)
                else:
                    self._drop(shared, entry)
        self.silent, self.rebuild = self.silent | lanes, max(now_ms, self.rebuild + 1)
        if self.silent:
            self.changed[SILENCE_KEY] = Silence(tuple(sorted(self.silent)), self.rebuild)

    def set(self, limit: LimitId, capacity: int, interval_ms: int, now_ms: int) -> None:
        """Let this definition hold over what jobs say; a capacity of 0 ends that."""
        shared = self._known(limit, max(capacity, 1), max(interval_ms, 1))
        known = shared.definition
        known.set_capacity, known.set_interval_ms = capacity, interval_ms
        shared.define(known.capacity, known.interval_ms)
        self._dirty.add(limit)
        self._rest(limit, shared)
        self.settle(limit, now_ms)

    # --- who is next ---

    def settle(self, limit: LimitId, now_ms: int) -> None:
        """Give out what can be given out."""
        shared = self._shared.get(limit)
        if shared is None or self.silent:
            return
        while (job_id := shared.line.first()) is not None:
            entry = shared.entries[job_id]
            if shared.rate is None:
                if shared.holders >= shared.capacity:
                    return
            elif not self._is_time(shared, entry, shared.rate, now_ms):
                return
            shared.line.take()
            shared.holding[job_id] = None
            entry.status = GRANTED
            if shared.rate is not None:
                entry.from_ms = shared.rate.reserve(now_ms)
                self._dirty.add(limit)
            self._write(entry)
            self.granted.append(entry)

    def _is_time(self, shared: Shared, entry: Entry, counted: Rate, now_ms: int) -> bool:
        from_ms = counted.earliest(now_ms)
        if from_ms is None:
            return False
        wake_ms = from_ms if self._is_own(entry) else from_ms - AHEAD_MS
        if wake_ms <= now_ms:
            return True
        if shared.wakes_ms <= now_ms or wake_ms < shared.wakes_ms:
            shared.wakes_ms = wake_ms
            heappush(self._wakes, (wake_ms, entry.limit))
        return False

    @property
    def wake_ms(self) -> int | None:
        """When `wake` is to be called next, unix milliseconds; None if nobody waits for a time."""
        return self._wakes[0][0] if self._wakes else None

    def wake(self, now_ms: int) -> None:
        """Give out what time has brought, and drop what need not be remembered any more."""
        wakes, resting = self._wakes, self._resting
        while wakes and wakes[0][0] <= now_ms:
            self.settle(heappop(wakes)[1], now_ms)
        while resting and resting[0][0] <= now_ms:
            limit = heappop(resting)[1]
            shared = self._shared.get(limit)
            if shared is not None:
                shared.is_resting = False
                self._rest(limit, shared, now_ms)

    # --- records ---

    def flush(self) -> dict[str, Struct | None]:
        """The records that have changed since the last time, by their keys."""
        for limit in self._dirty:
            shared = self._shared.get(limit)
            if shared is None:
                self.changed[limit_key(limit)] = None
                continue
            if shared.rate is not None:
                shared.definition.rate = shared.rate.record()
            elif not (shared.definition.set_capacity or shared.is_written or self._has_foreign(shared)):
                continue
            shared.is_written = True
            self.changed[limit_key(limit)] = shared.definition
        self._dirty.clear()
        changed, self.changed = self.changed, {}
        return changed

    def _is_own(self, entry: Entry) -> bool:
        return lane_of_job(entry.job_id) == self._number

    def _has_foreign(self, shared: Shared) -> bool:
        return any(not self._is_own(entry) for entry in shared.entries.values())

    def _write(self, entry: Entry) -> None:
        if not self._is_own(entry):
            self.changed[entry_key(entry)] = entry
            if not self._shared[entry.limit].is_written:
                self._dirty.add(entry.limit)

    def _drop(self, shared: Shared, entry: Entry) -> None:
        if entry.status == GRANTED and shared.rate is not None:
            shared.rate.given_back(entry.from_ms)
            self._dirty.add(entry.limit)
        self._forget(shared, entry)
        self._rest(entry.limit, shared)

    def _forget(self, shared: Shared, entry: Entry) -> None:
        del shared.entries[entry.job_id]
        if entry.status == WAITS:
            shared.line.remove(entry.job_id)
        else:
            del shared.holding[entry.job_id]
        if not self._is_own(entry):
            self.changed[entry_key(entry)] = None

    def _rest(self, limit: LimitId, shared: Shared, now_ms: int | None = None) -> None:
        """Drop a limit that nobody uses; look at a rate again when nothing will be left to remember."""
        if shared.entries or shared.definition.set_capacity or shared.is_resting:
            return
        if shared.rate is not None:
            idle_ms = shared.rate.idle_ms()
            if now_ms is None or idle_ms > now_ms:
                shared.is_resting = True
                heappush(self._resting, (idle_ms, limit))
                return
        del self._shared[limit]
        if shared.is_written:
            self._dirty.add(limit)
