"""When a continuation runs: a table of how its parent ended against what it waits for."""

from collections.abc import Mapping
from typing import Final, Literal

from joblog.streams.contract.states import ContinueOn, State

#: Of the jobs that wait for one parent, so many are named by its own state record; the others have their own ones.
LISTED_MAX: Final = 1_000

Verdict = Literal["run", "delete", "wait"]

#: A Failed parent may still be requeued, so a continuation on its success keeps waiting, as in Hangfire.
VERDICTS: Final[Mapping[ContinueOn, Mapping[State, Verdict]]] = {
    ContinueOn.SUCCEEDED: {State.SUCCEEDED: "run", State.DELETED: "delete", State.FAILED: "wait"},
    ContinueOn.DELETED: {State.SUCCEEDED: "delete", State.DELETED: "run", State.FAILED: "wait"},
    ContinueOn.FAILED: {State.SUCCEEDED: "delete", State.DELETED: "delete", State.FAILED: "run"},
    ContinueOn.FINISHED: {State.SUCCEEDED: "run", State.DELETED: "run", State.FAILED: "wait"},
    ContinueOn.ENDED: {State.SUCCEEDED: "run", State.DELETED: "run", State.FAILED: "run"},
}


def verdict(on: ContinueOn, parent: State) -> Verdict:
    """What to do with a continuation whose parent is in this state; it waits while that state is not final."""
    return VERDICTS[on].get(parent, "wait")


def reason(parent: str, state: State, outcome: Verdict) -> str:
    """The line in the continuation's history."""
    if outcome == "run":
        return f"Job {parent} ended as {state}"
    return f"Continuation condition was not met: job {parent} ended as {state}"
