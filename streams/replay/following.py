"""Follows what waits for others from those down: continuations, and batches with their jobs, in the order of need.

Theory of operation. What a job or a batch depends on is decided before it: a continuation after its parents, a job of
a batch after the batch began, the end of a batch after all of its members. Who depends on what is read from the
files; in memory are the places of these jobs, of each job of a batch when it ended, and the ends that would be
others. What waits for itself, in a circle, is decided last, as if that had changed nothing.
"""

from array import array
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from joblog.streams.progress import Told as Progress
from joblog.streams.replay.around import Around
from joblog.streams.replay.batches import Told, after_changes, began_after, moves_of, told_by
from joblog.streams.replay.continuations import NOTHING_KNOWN, Ends
from joblog.streams.replay.outcomes import Outcomes
from joblog.streams.replay.packed import unpacked
from joblog.streams.replay.question import Question
from joblog.streams.replay.relation_files import Files, Waiting, batch_event, ends_of, waiting

#: Steps that tell of progress are so many jobs long.
PORTION: Final = 1_000
FOLLOWING: Final = "following continuations"


class _Batch:
    """A batch while it is followed; `open`: of its begin and its members, how many are not decided yet."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.began = told.began()
        self.has_begun = False
        self.open = 1
        self.places = array("q")
        self.inner: list[str] = []
        self.moves = array("q")
        self.removed: Counter[int] = Counter()
        self.added: list[int] = []
        self.is_unknown = False

    def change(self, was: Iterable[int], would_be: Iterable[int], *, is_unknown: bool) -> None:
        """A member of it would have ended otherwise."""
        self.removed.update(was)
        self.added += would_be
        self.is_unknown |= is_unknown

    @property
    def simulated(self) -> list[int]:
        """The moves of its members as they would be."""
        left, found = self.removed.copy(), []
        for move in self.moves:
            if left[move]:
                left[move] -= 1
            else:
                found.append(move)
        return sorted(found + self.added)


class Following:
    """One walk over the files, after all lanes are read; the sums go into `outcomes`."""

    def __init__(self, question: Question, outcomes: Outcomes, files: Files, told: Progress) -> None:
        self._question, self._outcomes, self._files, self._told = question, outcomes, files, told
        self._batches: dict[str, _Batch] = {}
        #: By what they wait for: the places of jobs, and batches.
        self._children: dict[str, array[int]] = {}
        self._starts: dict[str, list[str]] = {}
        #: Of what some wait for: what depends on others itself; what jobs with several parents wait for.
        self._pending: set[str] = set()
        self._several: set[str] = set()
        #: On how many things a job depends that are not decided, if they are more than one.
        self._left: dict[int, int] = {}
        self._starting: dict[str, int] = {}
        self._ends: dict[str, Ends] = {}
        self._queue: deque[int | str] = deque()
        self._total = self._done = 0

    def run(self) -> None:
        """Decide all of them; raises Stopped, after which another walk begins anew."""
        self._read_batches()
        self._read_waiting()
        self._total, self._done = self._done, 0
        self._read_ends()
        roots = self._roots()
        for batch_id in [one for one, batch in self._batches.items() if not self._starting.get(one)]:
            self._begin(batch_id)
            self._follow()
        for place in roots:
            self._decide(place)
            self._follow()
        self._circles()

    # --- who depends on what ---

    def _read_batches(self) -> None:
        for _, data in self._files.batches.read():
            batch_id, event, at_ms, cause = batch_event(data)
            if (batch := self._batches.get(batch_id)) is None:
                self._batches[batch_id] = _Batch(told_by(event, at_ms, cause))
            else:
                batch.told.take(event, at_ms, cause)

    def _read_waiting(self) -> None:
        for place, data in self._files.waiting.read():
            one = waiting(data)
            for parent in one.parents:
                self._children.setdefault(parent, array("q")).append(place)
            if one.several:
                self._several.update(one.parents)
            if one.batch is not None and (batch := self._batches.get(one.batch)) is not None:
                batch.moves.extend(one.moves)
                batch.places.append(place)
                batch.open += 1
                batch.told.running |= one.stopped
            self._count()
        for batch_id, batch in self._batches.items():
            told = batch.told
            if told.outer in self._batches:
                outer = self._batches[told.outer]
                outer.inner.append(batch_id)
                outer.moves.extend(moves_of(told.created_ms, told.ends))
                outer.open += 1
            if told.parent is not None and told.parent != told.outer:
                self._starts.setdefault(told.parent, []).append(batch_id)
        for batch in self._batches.values():
            batch.moves = array("q", sorted(batch.moves))
            batch.began = batch.told.began()

    def _roots(self) -> "array[int]":
        """The places of jobs that depend on nothing which has to be decided first."""
        found = array("q")
        wanted = self._children.keys() | self._starts.keys()
        self._pending = self._batches.keys() & wanted
        for _, data in self._files.waiting.read():
            job_id = waiting(data).job_id
            if job_id in wanted:
                self._pending.add(job_id)
        self._children = {one: places for one, places in self._children.items() if one in self._pending}
        self._starts = {one: batches for one, batches in self._starts.items() if one in self._pending}
        for place, data in self._files.waiting.read():
            one = waiting(data)
            left = sum(parent in self._pending for parent in one.parents) + (one.batch in self._batches)
            if left > 1:
                self._left[place] = left
            elif not left:
                found.append(place)
        for batch_id, batch in self._batches.items():
            told = batch.told
            waits = told.parent != told.outer and told.parent in self._pending
            self._starting[batch_id] = (told.outer in self._batches) + waits
        return found

    def _read_ends(self) -> None:
        for _, data in self._files.ends.read():
            job_id, recorded, simulated = ends_of(data)
            is_other = simulated is not None and (job_id in self._children or job_id in self._starts)
            if is_other or job_id in self._several:
                self._ends[job_id] = Ends(recorded, recorded if simulated is None else simulated)

    # --- the walk ---

    def _follow(self) -> None:
        while self._queue:
            one = self._queue.popleft()
            if isinstance(one, int):
                self._decide(one)
            elif self._batches[one].has_begun:
                self._end(one)
            else:
                self._begin(one)

    def _ended(self, one: str) -> None:
        """A job or a batch is decided: whatever waits for it depends on one thing less."""
        if one not in self._pending:
            return
        self._pending.discard(one)
        for place in self._children.pop(one, ()):
            self._release(place)
        for batch_id in self._starts.pop(one, ()):
            self._release_batch(batch_id)

    def _release(self, place: int) -> None:
        left = self._left.pop(place, 1) - 1
        if left:
            self._left[place] = left
        else:
            self._queue.append(place)

    def _release_batch(self, batch_id: str) -> None:
        self._starting[batch_id] -= 1
        if not self._starting[batch_id]:
            self._queue.append(batch_id)

    def _begin(self, batch_id: str) -> None:
        batch = self._batches[batch_id]
        told = batch.told
        outer = self._batches.get(told.outer or "")
        parent = self._ends.get(told.parent or "")
        is_job = told.parent not in self._batches
        changed = parent if parent is not None and parent.differ else None
        batch.began = began_after(told, None if outer is None else outer.began, changed, is_job=is_job)
        batch.has_begun = True
        for place in batch.places:
            self._release(place)
        batch.places = array("q")
        for inner in batch.inner:
            self._release_batch(inner)
        self._member_decided(batch_id)

    def _member_decided(self, batch_id: str) -> None:
        batch = self._batches[batch_id]
        batch.open -= 1
        if not batch.open:
            self._queue.append(batch_id)

    def _end(self, batch_id: str) -> None:
        batch = self._batches[batch_id]
        if batch.removed or batch.is_unknown or batch.began.differs:
            self._change(batch_id, batch)
        batch.moves, batch.removed, batch.added = array("q"), Counter(), []
        self._ended(batch_id)
        if batch.told.outer in self._batches:
            self._member_decided(batch.told.outer)

    def _change(self, batch_id: str, batch: _Batch) -> None:
        told, began = batch.told, batch.began
        after = after_changes(told, batch.moves, batch.simulated, began)
        if after is not None:
            after.ends.is_unknown = after.is_open and (batch.is_unknown or began.is_unknown)
            if after.ends.differ:
                self._ends[batch_id] = after.ends
                if (outer := self._batches.get(told.outer or "")) is not None:
                    was, would_be = (moves_of(told.created_ms, ends) for ends in (told.ends, after.ends.simulated))
                    outer.change(was, would_be, is_unknown=after.ends.is_unknown)
        self._outcomes.add_batch(batch_id, after)

    def _decide(self, place: int, *, down: bool = True) -> None:
        one = waiting(self._files.waiting.at(place))
        around = self._around(one)
        ends = None
        if one.is_chosen or around is not None:
            history = unpacked(one.history)
            rules = self._question.otherwise if one.is_chosen else self._question.as_it_was
            otherwise = rules.of(history, around)
            self._outcomes.add(history, otherwise, by_parent=around is not None and around.is_changed)
            ends = Ends(history.ends, otherwise.ends, otherwise.is_unknown)
        elif one.job_id in self._several:
            recorded = unpacked(one.history).ends
            ends = Ends(recorded, recorded)
        if ends is not None and down:
            self._keep(one, ends)
        if down:
            self._ended(one.job_id)
            if one.batch in self._batches:
                self._member_decided(one.batch)
        self._count()

    def _keep(self, one: Waiting, ends: Ends) -> None:
        if one.job_id in self._several or (ends.differ and one.job_id in self._pending):
            self._ends[one.job_id] = ends
        if ends.differ and one.batch is not None and (batch := self._batches.get(one.batch)) is not None:
            batch.change(one.moves, moves_of(one.moves[0] >> 6, ends.simulated), is_unknown=ends.is_unknown)

    def _around(self, one: Waiting) -> Around | None:
        """What this job depends on, if anything of that would be otherwise, or its batch is cancelled."""
        batch = self._batches.get(one.batch or "")
        began = batch.began if batch is not None else None
        if began is not None and not began.differs and (began.cancelled is None or not one.is_chosen):
            began = None
        known = {parent: ends for parent in one.parents if (ends := self._ends.get(parent)) is not None}
        if not any(ends.differ for ends in known.values()):
            return None if began is None else Around({}, began)
        if one.several:
            known = {parent: known.get(parent, NOTHING_KNOWN) for parent in one.parents}
        return Around(known, began)

    # --- circles ---

    def _circles(self) -> None:
        """Those that wait for themselves, and the batches of which they are members."""
        left = {place for places in self._children.values() for place in places}
        left.update(place for batch in self._batches.values() for place in batch.places)
        for place in sorted(left):
            self._decide(place, down=False)
        for batch_id, batch in self._batches.items():
            if batch.open and (batch.removed or batch.is_unknown):
                self._outcomes.add_batch(batch_id, None)

    def _count(self) -> None:
        if self._done % PORTION == 0:
            self._told(FOLLOWING, self._done, self._total)
        self._done += 1
