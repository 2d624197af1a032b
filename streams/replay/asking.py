"""What if, asked of a whole log: lane by lane, then from parents to their continuations; it can stop and go on.

Theory of operation. 1. A job without a parent is decided anew as soon as its history is whole; if it would have ended
otherwise, its ends go into the file `ends`. A continuation goes into the file `waiting`: its parent may be in a lane
that is not read yet. 2. When all lanes are read, continuations are followed from their parents down. In memory are
the lane's open jobs, and of each continuation its place.

The checkpoint has the place in the log, the histories that are open there, and the sums. It is written every million
records, at the end of each lane, and when somebody stops. Step 2 reads nothing of the log; it is begun anew.
"""

from collections import Counter, deque
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from joblog.streams.checkpoint import Checkpoint
from joblog.streams.errors import InvalidData
from joblog.streams.progress import Stopped, Told, silent
from joblog.streams.replay.continuations import Ends
from joblog.streams.replay.history import Histories, History
from joblog.streams.replay.log import EventReader
from joblog.streams.replay.outcomes import Outcomes, Sums
from joblog.streams.replay.packed import packed, unpacked
from joblog.streams.replay.spool import Spool
from joblog.streams.replay.what_if import WhatIf
from msgspec import Struct, msgpack

RECORDS_MAX: Final = 1_000_000
#: Steps that tell of progress are so many jobs long.
PORTION: Final = 1_000
READING: Final = "reading the log"

_encode: Final = msgpack.Encoder().encode
_ends: Final = msgpack.Decoder(tuple[str, Ends]).decode
_waiting: Final = msgpack.Decoder(tuple[bool, bytes]).decode


class Chosen(NamedTuple):
    """Which jobs are decided anew; continuations of jobs that would have ended otherwise are followed in any case."""

    task: str | None = None
    queue: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def has(self, history: History) -> bool:
        """Whether a job is one of them."""
        return (
            self.task in {None, history.job.task}
            and self.queue in {None, history.create.queue}
            and (self.from_ms or 0) <= history.created_ms
            and (self.to_ms is None or history.created_ms < self.to_ms)
        )


class Question(NamedTuple):
    """What is asked.

    - otherwise: the other policy or filters; as_it_was: those that the continuations of chosen jobs really have.
    - errors: counts what filters raise. whole: whether filters look at what jobs were created with.
    - asked: the question as text, by which another run knows whether it can go on.
    """

    otherwise: WhatIf
    as_it_was: WhatIf
    chosen: Chosen
    errors: Counter[str]
    whole: bool
    asked: dict[str, Any]


class Reached(Struct):
    """How far a run is: the checkpoint.

    - bounds: of each lane, the offsets to read. lane, next: the place in the log. held: the histories that are open.
    - waiting, ends: the lengths of the files.
    """

    asked: dict[str, Any]
    bounds: list[tuple[int, int]]
    next: int
    sums: Sums
    lane: int = 0
    held: list[bytes] = []
    errors: dict[str, int] = {}
    unreadable: int = 0
    waiting: int = 0
    ends: int = 0

    @property
    def total(self) -> int:
        return sum(end - start for start, end in self.bounds)

    @property
    def done(self) -> int:
        """How many offsets are read."""
        before = sum(end - start for start, end in self.bounds[: self.lane])
        return before + (self.next - self.bounds[self.lane][0] if self.lane < len(self.bounds) else 0)


class Asking:
    """One run over the log; its files are in `directory`, from which it goes on if another one stopped there."""

    def __init__(self, reader: EventReader, question: Question, directory: Path, told: Told = silent) -> None:
        self._reader, self._question, self._told = reader, question, told
        self._checkpoint = Checkpoint(directory, "what-if", Reached)
        self._reached = self._begun()
        self._outcomes = Outcomes(self._reached.sums)
        question.errors.update(self._reached.errors)
        reader.unreadable += self._reached.unreadable
        self._files = ExitStack()
        self._waiting = self._files.enter_context(Spool(directory / "what-if.waiting", self._reached.waiting))
        self._ends = self._files.enter_context(Spool(directory / "what-if.ends", self._reached.ends))
        self._histories = self._held(self._reached.held)
        self._unwritten = 0

    def _begun(self) -> Reached:
        reader, chosen = self._reader, self._question.chosen
        asked = {**self._question.asked, "topic": reader.topic, "cluster": reader.cluster()}
        if (found := self._checkpoint.read()) is not None:
            if found.asked != asked:
                raise InvalidData("the directory has the files of another question: give another one")
            return found
        bounds = [reader.bounds(lane, chosen.from_ms) for lane in range(reader.lanes)]
        return Reached(asked, bounds, bounds[0][0], Outcomes().sums)

    def run(self) -> None:
        """Find out; raises Stopped, after which another run goes on, and what EventReader does."""
        reached = self._reached
        while reached.lane < len(reached.bounds):
            self._read_lane(reached.next, reached.bounds[reached.lane][1])
            if reached.held or self._unwritten:
                self._write()
            self._take_all(self._histories)
            self._histories = self._held(())
            reached.lane += 1
            reached.next = reached.bounds[reached.lane][0] if reached.lane < len(reached.bounds) else 0
        self._write()
        _Following(self._question, self._outcomes, self._waiting, self._ends, self._told).run()

    @property
    def unreadable(self) -> int:
        """How many records could not be read."""
        return self._reader.unreadable

    def report(self) -> dict[str, Any]:
        """What was found: all of it, or until somebody stopped."""
        return {**self._outcomes.report(), "filter_errors": dict(self._question.errors)}

    def close(self) -> None:
        self._files.close()

    def discard(self) -> None:
        """Remove the files."""
        self._checkpoint.remove()
        self._waiting.remove()
        self._ends.remove()

    def _held(self, held: Iterable[bytes]) -> Histories:
        chosen = self._question.chosen
        made = Histories(chosen.from_ms, chosen.to_ms, whole=self._question.whole)
        made.hold(map(unpacked, held))
        return made

    def _read_lane(self, start: int, end: int) -> None:
        for stored in self._reader.events(self._reached.lane, start, end, self._advance):
            for history in self._histories.take(stored):
                self._take(history)

    def _advance(self, count: int) -> None:
        """So many records more are taken, and all that they led to."""
        reached = self._reached
        reached.next += count
        self._unwritten += count
        try:
            self._told(READING, reached.done, reached.total)
        except Stopped:
            self._write()
            raise
        if self._unwritten >= RECORDS_MAX:
            self._write()

    def _take_all(self, histories: Iterable[History]) -> None:
        for number, history in enumerate(histories):
            if number % PORTION == 0:
                self._told(READING, self._reached.done, self._reached.total)
            self._take(history)

    def _take(self, history: History) -> None:
        is_chosen = self._question.chosen.has(history)
        if history.job.parent is not None:
            self._waiting.append(_encode((is_chosen, packed(history))))
        elif is_chosen:
            otherwise = self._question.otherwise.of(history)
            self._outcomes.add(history, otherwise)
            ends = Ends(history.ends, otherwise.ends)
            if ends.differ:
                self._ends.append(_encode((history.job.id, ends)))

    def _write(self) -> None:
        self._waiting.flush()
        self._ends.flush()
        reached = self._reached
        reached.held = [packed(history) for history in self._histories]
        reached.sums, reached.errors = self._outcomes.sums, dict(self._question.errors)
        reached.unreadable = self._reader.unreadable
        reached.waiting, reached.ends = self._waiting.size, self._ends.size
        self._checkpoint.write(reached)
        reached.held = []
        self._unwritten = 0


class _Following:
    """Follows continuations from their parents down."""

    def __init__(self, question: Question, outcomes: Outcomes, waiting: Spool, ends: Spool, told: Told) -> None:
        self._question, self._outcomes, self._waiting, self._told = question, outcomes, waiting, told
        self._children: dict[str, list[int]] = {}
        self._known: set[str] = set()
        self._total = self._done = 0
        for place, data in waiting.read():
            history = unpacked(_waiting(data)[1])
            self._children.setdefault(history.job.parent or "", []).append(place)
            self._known.add(history.job.id)
            self._count()
        self._total, self._done = self._done, 0
        found = (_ends(data) for _, data in ends.read())
        self._ends = {job: one for job, one in found if job in self._children}

    def run(self) -> None:
        """Those whose parents are not continuations themselves, then theirs; at last those that wait in circles."""
        roots = [parent for parent in self._children if parent not in self._known]
        self._follow(deque(place for parent in roots for place in self._children.pop(parent)))
        self._follow(deque(place for places in self._children.values() for place in places), down=False)

    def _follow(self, places: deque[int], *, down: bool = True) -> None:
        while places:
            is_chosen, data = _waiting(self._waiting.at(places.popleft()))
            history = unpacked(data)
            self._decide(history, is_chosen=is_chosen)
            if down:
                places.extend(self._children.pop(history.job.id, ()))
            self._count()

    def _decide(self, history: History, *, is_chosen: bool) -> None:
        parent = self._ends.get(history.job.parent or "")
        if parent is None and not is_chosen:
            return
        rules = self._question.otherwise if is_chosen else self._question.as_it_was
        otherwise = rules.of(history, parent)
        self._outcomes.add(history, otherwise, by_parent=parent is not None)
        ends = Ends(history.ends, otherwise.ends, otherwise.is_unknown)
        if ends.differ and history.job.id in self._children:
            self._ends[history.job.id] = ends

    def _count(self) -> None:
        if self._done % PORTION == 0:
            self._told("following continuations", self._done, self._total)
        self._done += 1
