"""How commands are decided: creations, and changes of jobs that are live or revived by a snapshot."""

from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import hashed_job_id, lane_of_job
from joblog.streams.contract.relations import PARENT_PARAMETER
from joblog.streams.contract.states import FINAL_STATES
from joblog.streams.lane.extras import extras_of
from joblog.streams.lane.job import Job, first_event, job_with, revived
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import RESERVED, Election, Rejection, elected_first
from msgspec import Raw, json, structs

_encode: Final = json.Encoder().encode


def create(lane: Pipeline, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
    """Create the job that a command asks for; returns why it is not created."""
    command = received.command
    assert isinstance(command, wire.CreateJob)
    job_id = command.job_id
    if job_id is None:
        job_id = _derived_id(lane.number, command, received)
    elif command.idempotency_key is not None and not lane.has_queue(command.queue):  # two lanes must not decide
        return Rejection("wrong_lane", f"queue {command.queue} has no keys in lane {lane.number}, which the id names")
    if job_id in lane.store.jobs or lane.ended.get(job_id) is not None:
        return Rejection("duplicate", f"job {job_id} exists already")
    extras = extras_of(command, election.now_ms)
    if (extras is not None or command.parent is not None or command.parameters) and (
        rejected := _unfit(command, job_id, lane.lanes)
    ):
        return rejected
    spec = _encode(_spec(command) if extras is None else _spec_with_extras(command))
    now_ms = election.now_ms
    event = first_event(command, spec, now_ms)
    if event.state in election.watched:
        event = elected_first(job_id, event, command, election)
    job = job_with(job_id, event, spec, command.priority, now_ms, extras)
    if received.traceparent is not None:
        job.traceparent = received.traceparent
    if extras is not None:
        for creating in lane.hooks.creating(extras.uses):
            if rejected := creating(job, received.id, election, out):
                return rejected
    lane.add(job, event, received.id, election, out)
    return None


def _spec(command: wire.CreateJob) -> wire.JobSpec:
    """The facts of a job that uses no feature of its own."""
    return wire.JobSpec(
        command.args,
        command.kwargs,
        command.priority,
        command.retry,
        command.timeout_s,
        Raw(_encode(command.parameters)) if command.parameters else wire.EMPTY_OBJECT,
        command.parent,
        command.idempotency_key,
    )


def _spec_with_extras(command: wire.CreateJob) -> wire.JobSpec:
    return structs.replace(
        _spec(command),
        parents=command.parents,
        limits=command.limits,
        unique=command.unique,
        batch=command.batch,
        deadline=command.deadline,
        expires_in_s=command.expires_in_s,
    )


def change(lane: Pipeline, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
    """Change the job that a command names; returns why it is not changed."""
    command: Any = received.command
    job = lane.store.jobs.get(command.job_id)
    if job is None:
        found = _revived(lane, command)
        if isinstance(found, Rejection):
            return found
        job = found
    if job.extras is not None:
        for changing in lane.hooks.changing(job.extras.uses):
            if rejected := changing(job, command, election):
                return rejected
    return lane.apply(job, command, received.id, election, out)


def _unfit(command: wire.CreateJob, job_id: str, lanes: int) -> Rejection | None:
    """Why the job cannot wait for its parents, or have this batch or these parameters; None if it can."""
    if command.batch is not None and lane_of_job(command.batch) >= lanes:
        return Rejection("invalid", f"the batch's id names a lane beyond the {lanes} that there are")
    for name in command.parameters:
        if name.startswith(PARENT_PARAMETER):
            return RESERVED
    parents = command.parents.job_ids if command.parents is not None else ()
    for parent in parents if command.parent is None else (command.parent.job_id,):
        if parent == job_id:
            return Rejection("invalid", "a job cannot wait for itself")
        lane = lane_of_job(parent)
        if lane >= lanes:
            return Rejection("unknown_job", f"the parent's id names lane {lane}, and there are only {lanes}")
    return None


def _derived_id(lane: int, command: wire.CreateJob, received: wire.Received) -> str:
    if command.idempotency_key is not None:
        return hashed_job_id(lane, command.queue, command.idempotency_key)
    return hashed_job_id(lane, received.source, received.id)


def _revived(lane: Pipeline, command: wire.Change) -> Job | Rejection:
    """The ended job that the command's snapshot describes, or why it cannot be revived."""
    remembered = lane.ended.get(command.job_id)
    snapshot = getattr(command, "snapshot", None)
    if snapshot is None:
        if remembered is None:
            return Rejection(
                "unknown_job",
                "no such live job; one that ended needs its snapshot to be revived, which `joblog job requeue` takes "
                "from Postgres; if its row has expired there, create the job anew (the log has it: `joblog replay "
                "history ID`)",
            )
        return Rejection(
            "ended",
            f"the job ended as {remembered[0]}; only a requeue with its snapshot revives it, which `joblog job "
            "requeue` takes from Postgres until the row expires there",
        )
    assert isinstance(snapshot, wire.Snapshot)
    if snapshot.state not in FINAL_STATES:
        return Rejection("unknown_job", f"the snapshot's state {snapshot.state} is not final, yet the job is gone")
    if remembered is not None and remembered != (snapshot.state, snapshot.version):
        said = f"the snapshot says {snapshot.state} at version {snapshot.version}"
        return Rejection("wrong_version", f"{said}, the job ended as {remembered[0]} at version {remembered[1]}")
    return revived(command.job_id, snapshot)
