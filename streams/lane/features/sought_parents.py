"""Parents of which a lane knows nothing, though jobs wait for them: who has the read model is asked how they ended.

Theory of operation. A lane remembers so many ended jobs; how an older one ended, only the read model knows. So when a
parent is unknown although everything was read, the lane writes the event `parent.sought`. It lies behind all events
of that job, which are of the same lane: a projector that has applied it has applied all of them, and answers with the
report `parent.found`. Nothing depends on its coming: the lane asks again, each time after twice as long, and gives
the parent up in its time; but not before it has asked, which after an outage may be late.

An answer may come twice, late, or when the job has been created or revived meanwhile. So it names its question, which
is the place of the report with which the first of those who wait came. As long as they wait here, the job has not
appeared since, and any answer to the question is right; when they have been handed over, or told, none is heard.

That the read model has no such job is noted, and no more: it may be created later than its continuation.
"""

from datetime import timedelta
from heapq import heappop, heappush
from typing import Final, NamedTuple

from joblog.streams.contract import wire
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.lane.output import LaneOutput

#: How long a parent is unknown before the first question: most are created at the same time as their continuation.
ASK_AFTER_MS: Final = 1_000
#: How long an answer is waited for at least.
PATIENCE_MS: Final = 5_000


class Link(NamedTuple):
    """A job that waits for a parent: how that has to end, since when (unix milliseconds), and what reported it."""

    child: str
    on: str
    since_ms: int
    place: str = ""


#: The jobs that wait for one parent, in the order in which they came.
Links = tuple[Link, ...]


class SoughtParents:
    """When to ask for which parent, and those that the read model does not have; in memory only.

    Each is looked at when there may be something to do, since so many may be unknown that a look at all takes long.
    """

    __slots__ = ("_absent", "_first_ms", "_heap", "_looks", "_next_ms")

    def __init__(self) -> None:
        self._first_ms: dict[str, int] = {}
        self._next_ms: dict[str, int] = {}
        self._absent: set[str] = set()
        #: When each is to be looked at; in the heap there may be other entries of it, which are stale.
        self._looks: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def begin(self, parent: str, at_ms: int) -> None:
        """Look at a parent then, which is unknown."""
        self._looks[parent] = at_ms
        heappush(self._heap, (at_ms, parent))

    def next(self, now_ms: int) -> str | None:
        """One that is to be looked at now, and is again when `look_again` says; None if none is."""
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, parent = heappop(self._heap)
            if self._looks.get(parent) == at_ms:
                return parent
        return None

    def look_again(self, parent: str, links: Links, pending_ms: int, now_ms: int) -> None:
        """Look at one again when it is time to ask for it, or to give it up."""
        if parent in self._absent:
            self.begin(parent, links[-1].since_ms + pending_ms + 1)
            return
        over_ms = self._until_ms(parent, links, pending_ms, now_ms) + 1
        self.begin(parent, max(min(self._next_ms.get(parent, over_ms), over_ms), now_ms + 1))

    def is_over(self, parent: str, links: Links, pending_ms: int, now_ms: int) -> bool:
        """Whether a parent is to be given up, for which jobs wait so long at most."""
        if parent in self._absent:
            return now_ms > links[-1].since_ms + pending_ms
        return now_ms > self._until_ms(parent, links, pending_ms, now_ms)

    def ask(self, parent: str, links: Links, pending_ms: int, now_ms: int, out: LaneOutput) -> None:
        """Ask for a parent, if it is time for it."""
        if parent in self._absent or now_ms < self._next_ms.get(parent, links[0].since_ms + ASK_AFTER_MS):
            return
        until_ms = self._until_ms(parent, links, pending_ms, now_ms)
        waited_ms = now_ms - self._first_ms.setdefault(parent, now_ms)
        self._next_ms[parent] = now_ms + 2 * ASK_AFTER_MS + waited_ms
        sought = wire.ParentSought(parent, question_of(links), EPOCH + timedelta(milliseconds=until_ms))
        cause = links[0].place or None
        out.events.append((parent, "parent.sought", f"{parent}/sought/{now_ms}", sought, cause, None))
        out.budget.spend(1, 0)

    def is_absent(self, parent: str) -> bool:
        """Whether the read model is known not to have it."""
        return parent in self._absent

    def note_absent(self, parent: str) -> None:
        """Take that in: it is not asked for again."""
        self._absent.add(parent)
        self.begin(parent, 0)

    def forget(self, parent: str) -> None:
        """Nobody waits for it here any more."""
        self._first_ms.pop(parent, None)
        self._next_ms.pop(parent, None)
        self._absent.discard(parent)
        self._looks.pop(parent, None)

    def _until_ms(self, parent: str, links: Links, pending_ms: int, now_ms: int) -> int:
        return max(links[-1].since_ms + pending_ms, self._first_ms.get(parent, now_ms) + PATIENCE_MS)


def question_of(links: Links) -> str:
    """What an answer has to name."""
    return links[0].place or f"since/{links[0].since_ms}"


def unknown(parent: str, pending_ms: int, *, is_absent: bool) -> str:
    """Why a continuation does not run whose parent was given up."""
    if is_absent:
        why = f"Postgres does not have it, and it was not created within {pending_ms / 1000:g} s"
        return f"Job {parent} is unknown: {why}. It was never created, or its row has expired"
    return f"Job {parent} is unknown: it was never created, or ended too long ago, and no projector said how"
