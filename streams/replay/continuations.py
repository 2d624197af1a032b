"""What becomes of a job whose parent would have ended otherwise: the parent's end as an input, put where it would be.

An end of a parent that the lanes' rules pass on (streams/lane/verdicts.py) comes as long after it as the
recorded one did. What no end of a job explains stays as it is recorded: a parent that is a batch, was unknown or
forgotten, or had too many continuations.
"""

from collections.abc import Sequence

from joblog.streams.contract import wire
from joblog.streams.contract.states import AWAITING, ContinueOn
from joblog.streams.lane.verdicts import reason, verdict
from joblog.streams.replay.history import End, History, Outside, Run
from msgspec import Struct


class Ends(Struct, array_like=True):
    """How a job ended, and how it would have; `is_unknown`: it would have run, and nobody knows how that ended."""

    recorded: list[End]
    simulated: list[End]
    is_unknown: bool = False

    @property
    def differ(self) -> bool:
        return self.is_unknown or self.recorded != self.simulated


def steps_after(history: History, parent: Ends) -> list[Run | Outside]:
    """The steps of a continuation, as they would have been after these ends of its parent."""
    steps = list(history.steps)
    on = history.create.parent.on if history.create.parent is not None else ContinueOn.SUCCEEDED
    was = decisive(on, parent.recorded, history.created_ms)
    would_be = decisive(on, parent.simulated, history.created_ms)
    recorded = next((step for step in steps if isinstance(step, Outside) and _is_parents_end(step)), None)
    late_ms = 0
    if recorded is not None:
        if was is not None and recorded.what.run == (verdict(on, was[1]) == "run"):
            late_ms = max(recorded.at_ms - max(was[0], history.created_ms), 0)
        elif would_be is None or recorded.at_ms <= would_be[0]:
            return steps
        steps.remove(recorded)
    if would_be is not None:
        at_ms = max(would_be[0], history.created_ms) + late_ms
        _insert(steps, Outside(at_ms, _report(history, on, would_be), AWAITING))
    return steps


def decisive(on: ContinueOn, ends: Sequence[End], created_ms: int) -> End | None:
    """The first end that decides about a continuation; of those before its creation only the last one counts."""
    before = [end for end in ends if end[0] <= created_ms]
    later = ends[max(len(before) - 1, 0) :]
    return next((end for end in later if verdict(on, end[1]) != "wait"), None)


def _report(history: History, on: ContinueOn, end: End) -> wire.ParentEnded:
    outcome, parent = verdict(on, end[1]), history.job.parent or ""
    return wire.ParentEnded(
        job_id=history.job.id,
        parent=parent,
        state=end[1],
        run=outcome == "run",
        reason=reason(parent, end[1], outcome),
    )


def _is_parents_end(step: Outside) -> bool:
    return isinstance(step.what, wire.ParentEnded)


def _insert(steps: list[Run | Outside], new: Outside) -> None:
    """Before the first run, and before what came later from outside."""
    place = next((n for n, one in enumerate(steps) if isinstance(one, Run) or one.at_ms > new.at_ms), len(steps))
    steps.insert(place, new)
