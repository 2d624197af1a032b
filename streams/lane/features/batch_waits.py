"""What waits for the end of a batch: jobs and other batches, in any number.

Each wait is a record of its own, so that one more costs the same however many there are. When a batch ends, those
whose condition is decided are told over several turns: a transaction holds only so much. Whoever takes the lane over
goes on with those that are left.
"""

from typing import Final

from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.lane.features.batch_records import BATCH_KEY, WAITS, BatchWait
from joblog.streams.lane.features.batch_words import report_end
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.verdicts import verdict
from joblog.streams.lane.waiting_children import WaitingChildren

#: So many are told in a turn; there are ten turns a second.
TOLD_MAX: Final = 5_000


class BatchWaits:
    """The waits for the batches of one lane."""

    def __init__(self) -> None:
        self._children = WaitingChildren()

    def load(self, key: str, wait: BatchWait) -> None:
        batch_id, _, child = key.partition(WAITS)
        self._children.add(batch_id, child, wait.on)

    def add(self, batch_id: str, child: str, on: ContinueOn, out: LaneOutput) -> bool:
        """Let a job or a batch wait; False if it does."""
        if not self._children.add(batch_id, child, on):
            return False
        out.state[_key(batch_id, child)] = BatchWait(on)
        return True

    def of(self, batch_id: str) -> int:
        """How many wait for a batch."""
        return self._children.count(batch_id)

    def release(self, batch_id: str, state: State, out: LaneOutput) -> bool:
        """Tell those whose condition this end decides; False if some of them are left to a later turn.

        The others wait on, for a Failed job may be requeued.
        """
        for _ in range(TOLD_MAX):
            if out.budget.is_spent or (found := self._children.pop_decided(batch_id, state)) is None:
                break
            child, on = found
            is_met = verdict(on, state) == "run"
            text = f"atch {batch_id} ended as {state}"
            reason = f"B{text}" if is_met else f"Continuation condition was not met: b{text}"
            _tell(batch_id, state, child, is_met, reason, out)
        return not self._children.has_decided(batch_id, state)

    def refuse(self, batch_id: str, state: State | None, reason: str, out: LaneOutput) -> bool:
        """Let nothing that waits run, since the batch is no longer kept; False if some are left to a later turn."""
        for _ in range(TOLD_MAX):
            if out.budget.is_spent or (found := self._children.pop_decided(batch_id, state, is_last=True)) is None:
                break
            _tell(batch_id, state, found[0], False, reason, out)
        return not self._children.count(batch_id)


def _tell(batch_id: str, state: State | None, child: str, run: bool, reason: str, out: LaneOutput) -> None:
    report_end(batch_id, state, child, run, reason, out)
    out.state[_key(batch_id, child)] = None
    out.budget.spend(2, 0)


def _key(batch_id: str, child: str) -> str:
    return f"{BATCH_KEY}{batch_id}{WAITS}{child}"
