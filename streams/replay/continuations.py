"""What becomes of a job whose parents would have ended otherwise: their ends as inputs, put where they would be.

What a parent's end leads to are the lanes' own rules: verdicts.py for one parent, `condition` of parents.py for
several. An end that is passed on comes as long after it as the recorded one did. What no end of a parent explains
stays as it is recorded: a parent that was unknown or forgotten.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from joblog.streams.contract import wire
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.states import AWAITING, DELETED, FINAL_STATES, ContinueOn, State
from joblog.streams.lane.parents import condition, is_met, requeued
from joblog.streams.lane.transitions import ParentNoted
from joblog.streams.lane.verdicts import reason, verdict
from joblog.streams.replay.history import End, History, Outside, Run
from msgspec import Struct

Step = Run | Outside


class Ends(Struct, array_like=True):
    """How a job or a batch ended, and how it would have.

    - is_unknown: it would have run, or something in it, and nobody knows how that ended.
    """

    recorded: list[End]
    simulated: list[End]
    is_unknown: bool = False

    @property
    def differ(self) -> bool:
        return self.is_unknown or self.recorded != self.simulated


class Heard(NamedTuple):
    """What a continuation hears of a parent: its state (None: nobody knows it), and whether it may run by that."""

    at_ms: int
    state: State | None
    run: bool


#: A parent of which the log has nothing.
NOTHING_KNOWN: Final = Ends([], [], is_unknown=True)


def steps_after(history: History, parents: Mapping[str, Ends]) -> list[Step]:
    """The steps of a continuation, as they would have been after these ends of its parents."""
    created = history.create
    if created.parents is not None:
        return _after_several(history, created.parents, parents)
    if created.parent is None or created.parent.job_id not in parents:
        return history.steps
    return _after_one(history, created.parent, parents[created.parent.job_id])


def heard(on: ContinueOn, ends: Sequence[End], created_ms: int, *, again: bool = True) -> list[Heard]:
    """What a job that was created then hears of these ends; of those before its creation only the last one counts.

    `again`: if the parent goes on after an end that did not meet the condition, the job waits again.
    """
    found, waits, is_unmet = [], True, False
    before = sum(end[0] <= created_ms for end in ends)
    for at_ms, state in ends[max(before - 1, 0) :]:
        if state in FINAL_STATES:
            outcome = verdict(on, state)
            if waits and outcome != "wait":
                found.append(Heard(at_ms, state, outcome == "run"))
                waits, is_unmet = False, outcome == "delete"
        elif is_unmet and again:
            found.append(Heard(at_ms, state, False))
            waits, is_unmet = True, False
    return found


def moved(was: Sequence[Heard], would_be: Sequence[Heard], recorded: Sequence[Heard], since_ms: int) -> list[Heard]:
    """What is heard of a parent, and when; `was` and `would_be` are by its ends, `recorded` by the log."""
    late_ms = 0
    if recorded:
        if was and was[0].run == recorded[0].run:
            late_ms = max(recorded[0].at_ms - max(was[0].at_ms, since_ms), 0)
        elif not would_be or recorded[0].at_ms <= would_be[0].at_ms:
            return list(recorded)
    return [one._replace(at_ms=max(one.at_ms, since_ms) + late_ms) for one in would_be]


def _after_one(history: History, parent: wire.Parent, ends: Ends) -> list[Step]:
    on, since_ms, again = parent.on, history.created_ms, parent.kind is ParentKind.JOB
    steps = [step for step in history.steps if not _is_told(step)]
    told = [step for step in history.steps if isinstance(step, Outside) and _is_told(step)]
    recorded = [_as_heard(step.what, step.at_ms) for step in told]
    was, would_be = (heard(on, one, since_ms, again=again) for one in (ends.recorded, ends.simulated))
    after = moved(was, would_be, recorded, since_ms)
    if after == recorded:
        return history.steps
    for one in after:
        insert(steps, _of_one(history.job.id, parent.job_id, one), before_runs=bool(told))
    return steps


def _of_one(job_id: str, parent: str, one: Heard) -> Outside:
    if one.state is not None and one.state not in FINAL_STATES:
        return Outside(one.at_ms, wire.ParentRequeued(job_id=job_id, parent=parent), DELETED)
    text = "" if one.state is None else reason(parent, one.state, "run" if one.run else "delete")
    ended = wire.ParentEnded(job_id=job_id, parent=parent, state=one.state, run=one.run, reason=text)
    return Outside(one.at_ms, ended, AWAITING)


# --- several parents ---


def _after_several(history: History, parents: wire.Parents, ends: Mapping[str, Ends]) -> list[Step]:
    """Notes of all of them in the order of time, up to the one that decides; then only what takes that back."""
    steps = [step for step in history.steps if not _is_told(step)]
    had_told = len(steps) < len(history.steps)
    coming = sorted((one.at_ms, parent, one) for parent, one in _heard_of_all(history, parents, ends))
    for told in _decided(history.job.id, parents, coming):
        insert(steps, told, before_runs=had_told)
    return steps


def _heard_of_all(history: History, parents: wire.Parents, ends: Mapping[str, Ends]) -> Iterator[tuple[str, Heard]]:
    noted: dict[str, list[Heard]] = {}
    for step in history.steps:
        if isinstance(step, Outside) and isinstance(step.what, ParentNoted | wire.ParentRequeued):
            noted.setdefault(step.what.parent, []).append(_as_heard(step.what, step.at_ms, parents.on))
    for parent in dict.fromkeys(parents.job_ids):
        known, recorded = ends.get(parent, NOTHING_KNOWN), noted.get(parent, [])
        was, would_be = (heard(parents.on, one, history.created_ms) for one in (known.recorded, known.simulated))
        found = moved(was, would_be, recorded, history.created_ms)
        if not known.differ:
            found[: len(recorded)] = recorded  # at the very times
        yield from ((parent, one) for one in found)


def _decided(job_id: str, parents: wire.Parents, coming: Sequence[tuple[int, str, Heard]]) -> Iterator[Outside]:
    """What the job is told; what it does not hear, since it does not wait then, it learns if it waits again."""
    ended: dict[str, State | None] = {}
    waits, is_deleted = True, False
    missed: dict[str, State | None] = {}
    for at_ms, parent, one in coming:
        is_end = one.state is None or one.state in FINAL_STATES
        if waits:
            told = {parent: one.state}
        elif is_deleted and not is_end and parent in ended and not is_met(parents.on, ended[parent]):
            yield Outside(at_ms, wire.ParentRequeued(job_id=job_id, parent=parent), DELETED)
            ended.pop(parent, None)
            waits, told, missed = True, {other: state for other, state in missed.items() if other != parent}, {}
        else:
            missed[parent] = one.state
            continue
        for other, state in told.items():
            if not waits:
                missed[other] = state
            elif (state is None or state in FINAL_STATES) is (other not in ended):
                yield _note(at_ms, other, state)
                _learn(ended, other, state)
                found = condition(parents, ended)
                if found != "wait":
                    yield _decision(job_id, at_ms, other, state, run=found == "run")
                    waits, is_deleted = False, found == "delete"


def _learn(ended: dict[str, State | None], parent: str, state: State | None) -> None:
    if state is None or state in FINAL_STATES:
        ended[parent] = state
    else:
        ended.pop(parent, None)


def _note(at_ms: int, parent: str, state: State | None) -> Outside:
    text = requeued(parent) if state is not None and state not in FINAL_STATES else f"Job {parent} ended as {state}"
    return Outside(at_ms, ParentNoted(parent, wire.Outcome(state), text), AWAITING)


def _decision(job_id: str, at_ms: int, parent: str, state: State | None, *, run: bool) -> Outside:
    text = f"Job {parent} ended as {state}"
    ended = wire.ParentEnded(job_id=job_id, parent=parent, state=state, run=run, reason=text)
    return Outside(at_ms, ended, AWAITING)


# --- steps ---


def _as_heard(
    what: wire.ParentEnded | wire.ParentRequeued | ParentNoted, at_ms: int, on: ContinueOn | None = None
) -> Heard:
    if isinstance(what, wire.ParentEnded):
        return Heard(at_ms, what.state, what.run)
    if isinstance(what, wire.ParentRequeued):
        return Heard(at_ms, State.ENQUEUED, False)
    state = what.outcome.state
    return Heard(at_ms, state, on is not None and is_met(on, state))


def _is_told(step: Step) -> bool:
    """Whether it is what a job hears of its parents, or makes of that."""
    return isinstance(step, Outside) and isinstance(step.what, wire.ParentEnded | wire.ParentRequeued | ParentNoted)


def insert(steps: list[Step], new: Outside, *, before_runs: bool) -> None:
    """Before what came later from outside; and before the first run, if that was made since it was told."""
    place = next(
        (n for n, one in enumerate(steps) if (before_runs if isinstance(one, Run) else one.at_ms > new.at_ms)),
        len(steps),
    )
    steps.insert(place, new)
