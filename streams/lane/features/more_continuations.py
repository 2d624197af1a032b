"""The continuations of a job beyond those that its own record names, and ends that many have to be told of.

Each wait is a record of its own. When the parent has ended, its end is a record, too, with its result, and those
whose condition is decided are told over several turns: a transaction holds only so much. Whoever takes the lane over
goes on with those that are left. If the parent is requeued meanwhile, they wait for its next end.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.states import FINAL_STATES, ContinueOn
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.waiting_children import WaitingChildren
from msgspec import Struct, json

#: Before the id of the parent, and of the child behind it, in the keys of records.
PENDING_KEY: Final = "pending:"
#: So many are told in a turn; there are ten turns a second.
TOLD_MAX: Final = 5_000

_outcome: Final = json.Decoder(wire.Outcome).decode
#: Tells a child of an end: parent, child, what it waits for, the end.
Report = Callable[[str, str, ContinueOn, wire.Outcome, LaneOutput], None]


class MoreWait(Struct, tag="wait", frozen=True):
    """That a job waits for another one: the record of `PENDING_KEY + parent + "/" + its own id`."""

    on: ContinueOn


class ManyTold(Struct, tag="end", frozen=True):
    """How a job ended that many wait for: the record of `PENDING_KEY + its id + "/"`.

    - outcome: a wire.Outcome as JSON. is_last: no other end will come.
    """

    outcome: bytes
    is_last: bool = False


class MoreContinuations:
    """Those of one lane's jobs."""

    def __init__(self, jobs: dict[str, Job], report: Report) -> None:
        self._jobs, self._report = jobs, report
        self._children = WaitingChildren()
        #: The ends that are being told.
        self._ends: dict[str, tuple[wire.Outcome, bool]] = {}

    @property
    def parents(self) -> Collection[str]:
        return self._children.parents

    def load(self, key: str, record: MoreWait | ManyTold) -> None:
        parent, _, child = key.partition("/")
        if isinstance(record, MoreWait):
            self._children.add(parent, child, record.on)
        else:
            self._ends[parent] = _outcome(record.outcome), record.is_last

    def add(self, parent: str, child: str, on: ContinueOn, out: LaneOutput) -> None:
        """Let a job wait."""
        if self._children.add(parent, child, on):
            out.state[f"{PENDING_KEY}{parent}/{child}"] = MoreWait(on)

    def end(self, parent: str, outcome: wire.Outcome, out: LaneOutput, *, is_last: bool = False) -> None:
        """Begin to tell of an end; with `is_last` also those who wait for another one."""
        if self._children.has_decided(parent, outcome.state, is_last=is_last):
            self._ends[parent] = outcome, is_last
            out.state[f"{PENDING_KEY}{parent}/"] = ManyTold(json.encode(outcome), is_last)

    def tick(self, out: LaneOutput) -> Iterator[str]:
        """Tell some; yields the parents that are live again, for whose next end the others wait."""
        told = 0
        for parent, (outcome, is_last) in tuple(self._ends.items()):
            job = self._jobs.get(parent)
            is_live = job is not None and job.state not in FINAL_STATES
            while not is_live:
                if told >= TOLD_MAX or out.budget.is_spent:
                    return
                found = self._children.pop_decided(parent, outcome.state, is_last=is_last)
                if found is None:
                    break
                told += 1
                self._tell(parent, *found, outcome, out)
            del self._ends[parent]
            out.state[f"{PENDING_KEY}{parent}/"] = None
            if is_live:
                yield parent

    def _tell(self, parent: str, child: str, on: ContinueOn, outcome: wire.Outcome, out: LaneOutput) -> None:
        self._report(parent, child, on, outcome, out)
        out.state[f"{PENDING_KEY}{parent}/{child}"] = None
        out.budget.spend(1, 0)
