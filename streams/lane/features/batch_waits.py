"""What waits for the end of a batch: jobs and other batches, in any number.

Each wait is a record of its own, so that one more costs the same however many there are. When a batch ends, those
whose condition is decided are told over several turns: a transaction holds only so much. Whoever takes the lane over
goes on with those that are left.
"""

from collections import OrderedDict
from typing import Final

from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.lane.features.batch_records import BATCH_KEY, WAITS, BatchWait
from joblog.streams.lane.features.batch_words import report_end
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.verdicts import verdict

#: So many are told in a turn; there are ten turns a second.
TOLD_MAX: Final = 5_000


class BatchWaits:
    """The waits for the batches of one lane."""

    def __init__(self) -> None:
        #: By batch, and by what it is waited for: what waits, oldest first.
        self._waiting: dict[str, dict[ContinueOn, OrderedDict[str, None]]] = {}

    def load(self, key: str, wait: BatchWait) -> None:
        batch_id, _, child = key.partition(WAITS)
        self._add(batch_id, child, wait.on)

    def add(self, batch_id: str, child: str, on: ContinueOn, out: LaneOutput) -> bool:
        """Let a job or a batch wait; False if it does."""
        if not self._add(batch_id, child, on):
            return False
        out.state[_key(batch_id, child)] = BatchWait(on)
        return True

    def of(self, batch_id: str) -> int:
        """How many wait for a batch."""
        return sum(map(len, self._waiting.get(batch_id, {}).values()))

    def release(self, batch_id: str, state: State, out: LaneOutput) -> bool:
        """Tell those whose condition this end decides; False if some of them are left to a later turn.

        The others wait on, for a Failed job may be requeued.
        """
        for on in tuple(self._waiting.get(batch_id, ())):
            outcome = verdict(on, state)
            if outcome == "wait":
                continue
            is_met = outcome == "run"
            text = f"atch {batch_id} ended as {state}"
            reason = f"B{text}" if is_met else f"Continuation condition was not met: b{text}"
            if not self._tell(batch_id, on, state, is_met, reason, out):
                return False
        return True

    def refuse(self, batch_id: str, state: State | None, reason: str, out: LaneOutput) -> bool:
        """Let nothing that waits run, since the batch is no longer kept; False if some are left to a later turn."""
        each = tuple(self._waiting.get(batch_id, ()))
        return all(self._tell(batch_id, on, state, False, reason, out) for on in each)

    def _add(self, batch_id: str, child: str, on: ContinueOn) -> bool:
        by_condition = self._waiting.setdefault(batch_id, {})
        if child in by_condition.get(on, ()):
            return False
        for others in by_condition.values():
            others.pop(child, None)
        by_condition.setdefault(on, OrderedDict())[child] = None
        return True

    def _tell(
        self, batch_id: str, on: ContinueOn, state: State | None, run: bool, reason: str, out: LaneOutput
    ) -> bool:
        children = self._waiting[batch_id][on]
        for _ in range(min(TOLD_MAX, len(children))):
            if out.budget.is_spent:
                return False
            child, _ = children.popitem(last=False)
            report_end(batch_id, state, child, run, reason, out)
            out.state[_key(batch_id, child)] = None
            out.budget.spend(2, 0)
        if children:
            return False
        del self._waiting[batch_id][on]
        if not self._waiting[batch_id]:
            del self._waiting[batch_id]
        return True


def _key(batch_id: str, child: str) -> str:
    return f"{BATCH_KEY}{batch_id}{WAITS}{child}"
