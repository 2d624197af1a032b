"""What if, asked of a whole log: lane by lane, then from parents to their continuations; it can stop and go on.

Theory of operation. 1. A job that depends on no other one is decided anew as soon as its history is whole; its ends
go into the file `ends`. A continuation, or a job of a batch, goes into the file `waiting`: what it depends on may be
in a lane that is not read yet. Events of batches go into the file `batches`. 2. When all lanes are read, jobs and
batches are followed from what they depend on down (following.py). In memory are the lane's open jobs.

The checkpoint has the place in the log, the histories that are open there, and the sums. It is written every million
records, at the end of each lane, and when somebody stops. Step 2 reads nothing of the log; it is begun anew.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from joblog.streams.checkpoint import Checkpoint
from joblog.streams.errors import InvalidData
from joblog.streams.progress import Stopped, Told, silent
from joblog.streams.replay.following import Following
from joblog.streams.replay.history import Histories, History, is_related
from joblog.streams.replay.log import EventReader
from joblog.streams.replay.outcomes import Outcomes, Sums
from joblog.streams.replay.packed import packed, unpacked
from joblog.streams.replay.question import Question
from joblog.streams.replay.relation_files import Files, batch_record, ends_record, waiting_record
from joblog.streams.replay.spool import Spool
from joblog.streams.replay.stored import StoredBatch
from msgspec import Struct

RECORDS_MAX: Final = 1_000_000
#: Steps that tell of progress are so many jobs long.
PORTION: Final = 1_000
READING: Final = "reading the log"


class Reached(Struct):
    """How far a run is: the checkpoint.

    - bounds: of each lane, the offsets to read. lane, next: the place in the log. held: the histories that are open.
    - waiting, ends, batches: the lengths of the files.
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
    batches: int = 0

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
        self._spools = Files(
            *(
                self._files.enter_context(Spool(directory / f"what-if.{name}", getattr(self._reached, name)))
                for name in Files._fields
            )
        )
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
        Following(self._question, self._outcomes, self._spools, self._told).run()

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
        for spool in self._spools:
            spool.remove()

    def _held(self, held: Iterable[bytes]) -> Histories:
        chosen = self._question.chosen
        made = Histories(chosen.from_ms, chosen.to_ms, whole=self._question.whole)
        made.hold(map(unpacked, held))
        return made

    def _read_lane(self, start: int, end: int) -> None:
        for stored in self._reader.facts(self._reached.lane, start, end, self._advance):
            if isinstance(stored, StoredBatch):
                self._spools.batches.append(batch_record(stored))
                continue
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
        if is_related(history.create):
            self._spools.waiting.append(waiting_record(history, is_chosen=is_chosen))
            return
        simulated = history.ends
        if is_chosen:
            otherwise = self._question.otherwise.of(history)
            self._outcomes.add(history, otherwise)
            simulated = otherwise.ends
        self._spools.ends.append(ends_record(history, simulated))

    def _write(self) -> None:
        for spool in self._spools:
            spool.flush()
        reached = self._reached
        reached.held = [packed(history) for history in self._histories]
        reached.sums, reached.errors = self._outcomes.sums, dict(self._question.errors)
        reached.unreadable = self._reader.unreadable
        reached.waiting, reached.ends, reached.batches = (spool.size for spool in self._spools)
        self._checkpoint.write(reached)
        reached.held = []
        self._unwritten = 0
