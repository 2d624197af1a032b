"""How continuations stand to their parents: each end is noted in the job's parameters, where its run reads it."""

from collections.abc import Mapping
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.relations import OUTCOME_BYTES_MAX, PARENT_PARAMETER, Need
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.lane.job import Job
from joblog.streams.lane.verdicts import Verdict, verdict
from msgspec import Raw, json, structs

#: The notes of all parents, as JSON; what goes beyond is left out.
NOTES_BYTES_MAX: Final = 262_144
NO_ROOM: Final = f"the results of all parents have more than {NOTES_BYTES_MAX} bytes"

_parameters: Final = json.Decoder(dict[str, Raw]).decode
_outcome: Final = json.Decoder(wire.Outcome).decode


def several(job: Job) -> wire.Parents | None:
    """The parents of a job that waits for several; None for others."""
    return job.extras.parents if job.extras is not None else None


def waits_for(job: Job, parent: str) -> bool:
    """Whether this is the parent, or one of the parents, of which the job has not been told yet."""
    parents = several(job)
    if parents is None:
        return job.parent == parent
    return parent in parents.job_ids and parent not in ends(job)


def parents_of(job: Job) -> dict[str, ContinueOn]:
    """The parents of a job, and for which end of each it waits, or waited."""
    parents = several(job)
    if parents is not None:
        return dict.fromkeys(parents.job_ids, parents.on)
    return {} if job.parent is None or job.on is None else {job.parent: job.on}


def ends(job: Job) -> dict[str, State | None]:
    """The parents that have ended, as far as the job was told; None for those of which nobody knows how."""
    found = {}
    if PARENT_PARAMETER.encode() in job.parameters:
        for name, value in _parameters(job.parameters).items():
            if name.startswith(PARENT_PARAMETER):
                state = _outcome(value).state
                if is_end(state):
                    found[name.removeprefix(PARENT_PARAMETER)] = state
    return found


def is_end(state: State | None) -> bool:
    """Whether the state in a note says how a parent ended, and not that it was requeued."""
    return state is None or state in FINAL_STATES


def requeued(parent: str) -> str:
    """The line in the continuation's history."""
    return f"Job {parent} was requeued"


def condition(parents: wire.Parents, ended: Mapping[str, State | None]) -> Verdict:
    """What becomes of a job with several parents after these ends."""
    met = [is_met(parents.on, ended[one]) for one in parents.job_ids if one in ended]
    is_over = len(met) == len(parents.job_ids)
    if parents.need is Need.ANY:
        return "run" if any(met) else "delete" if is_over else "wait"
    return "delete" if not all(met) else "run" if is_over else "wait"


def is_met(on: ContinueOn, state: State | None) -> bool:
    """Whether this end of a parent, of which nothing else will come, is the one that is waited for."""
    return state is not None and verdict(on, state) == "run"


def told(job: Job, report: wire.ParentEnded) -> wire.Outcome:
    """What the job notes of its parent's end."""
    outcome = wire.Outcome(report.state, report.result, report.exception, report.omitted)
    if len(job.parameters) + len(json.encode(outcome)) > NOTES_BYTES_MAX:
        return wire.Outcome(report.state, omitted=NO_ROOM)
    return outcome


def carried(event: wire.JobEvent | None, state: State) -> wire.Outcome:
    """What a job's last event has for its continuations; None if the event is not at hand."""
    if state is State.DELETED:
        return wire.Outcome(state)
    if event is None:
        kind = "result" if state is State.SUCCEEDED else "exception"
        why = f"it ended before it was known that this job waits, and its {kind} is no longer at hand"
        return wire.Outcome(state, omitted=why)
    if state is State.FAILED:
        return wire.Outcome(state, exception=_cut(event.exception))
    size = len(bytes(event.result))
    if size > OUTCOME_BYTES_MAX:
        return wire.Outcome(state, omitted=f"the result has {size} bytes as JSON, more than {OUTCOME_BYTES_MAX}")
    return wire.Outcome(state, event.result, omitted=event.result_omitted)


def size_of(outcome: wire.Outcome) -> int:
    """About how many bytes it has, as part of a report."""
    exception = 0 if outcome.exception is None else len(outcome.exception.details)
    return memoryview(outcome.result).nbytes + exception


def _cut(exception: wire.JobException | None) -> wire.JobException | None:
    """The exception, without what makes it too large."""
    if exception is None or len(json.encode(exception)) <= OUTCOME_BYTES_MAX:
        return exception
    return structs.replace(exception, message=exception.message[:1_000], details="", types=exception.types[:10])
