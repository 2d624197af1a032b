"""What the lane of a batch says: events, reports to other lanes, and why it refuses a command."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, Literal

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import DELETED, FAILED, PROCESSING, SUCCEEDED, State
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.lane.features.batch_records import BATCH_KEY, Batch
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.transitions import Rejection

#: The event that tells of a state.
EVENTS: Final[Mapping[State, str]] = {
    PROCESSING: "batch.started",
    SUCCEEDED: "batch.succeeded",
    FAILED: "batch.failed",
    DELETED: "batch.deleted",
}
#: The metric, and its labels, that counts events of a type.
_COUNTED: Final[Mapping[str, tuple[str, ...]]] = {
    "batch.created": ("joblog_batches_created_total",),
    "batch.cancelled": ("joblog_batches_cancelled_total",),
    **{EVENTS[state]: ("joblog_batches_ended_total", str(state)) for state in (SUCCEEDED, FAILED, DELETED)},
}


# --- events ---


def write_event(
    batch_id: str, batch: Batch, kind: str, reason: str | None, cause: str | None, now_ms: int, out: LaneOutput
) -> None:
    """Write an event, which says all of the batch as it is now, and the batch's record with it."""
    batch.version += 1
    batch.event_ms = now_ms
    batch.shown = numbers(batch)
    created, succeeded, failed, deleted = batch.counts
    data = wire.BatchEvent(
        batch.version,
        batch.state,
        EPOCH + timedelta(milliseconds=batch.at_ms),
        batch.total,
        created,
        succeeded,
        failed,
        deleted,
        batch.cancelled is not None,
        reason,
        batch.description,
        batch.outer,
        batch.parent,
        batch.on,
    )
    out.events.append((batch_id, kind, f"{batch_id}/{batch.version}", data, cause, None))
    if (metric := _COUNTED.get(kind)) is not None:
        out.counts[metric] += 1
    out.state[BATCH_KEY + batch_id] = batch
    out.budget.spend(2, 0)


def write_unknown(batch_id: str, reason: str, now_ms: int, out: LaneOutput) -> None:
    """Write that jobs name a batch which is not there."""
    data = wire.CommandRejected("unknown_batch", reason, None, None, batch_id)
    out.events.append((batch_id, "command.rejected", f"{batch_id}/unknown@{now_ms}", data, None, None))
    out.counts["joblog_commands_rejected_total", data.code] += 1


def numbers(batch: Batch) -> tuple[int, ...]:
    """The numbers that an event tells."""
    return (*batch.counts, batch.total)


def why(batch: Batch, state: State) -> str | None:
    """The line that an event of this state says."""
    created = batch.counts[0]
    if state is PROCESSING:
        return "Jobs were added or requeued"
    if batch.gave_up:
        return "Not everything that was to be added came in time"
    if state is DELETED and created < batch.total:
        return f"{batch.total - created} of {batch.total} jobs were not created: see the rejected commands"
    return batch.cancelled if state is DELETED else None


# --- reports ---


def tell(
    batch_id: str,
    lanes: Iterable[int],
    what: Literal["started", "cancelled", "forgotten"],
    reason: str,
    out: LaneOutput,
    *,
    running: bool = False,
) -> None:
    """Tell lanes what has become of a batch."""
    for lane in lanes:
        told = wire.BatchTold(job_id=batch_id, what=what, running=running, reason=reason)
        out.reports.append((lane, batch_id, told))


def tell_started(batch_id: str, batch: Batch, out: LaneOutput) -> None:
    """Tell the lanes that have asked."""
    tell(batch_id, batch.asking, "started", "", out)
    batch.asking = ()


def report_end(batch_id: str, state: State | None, child: str, run: bool, reason: str, out: LaneOutput) -> None:
    """Let what waits for a batch, a job or another batch, run or not."""
    report = wire.ParentEnded(job_id=child, parent=batch_id, state=state, run=run, reason=reason)
    out.reports.append((lane_of_job(child), child, report))


# --- refusals ---


def unfit(known: int, batch_id: str, others: Iterable[str], lanes: tuple[int, ...]) -> Rejection | None:
    """Why a batch cannot have these parents, outer batches and lanes, of so many that there are; None if it can."""
    if batch_id in others:
        return Rejection("invalid", "a batch cannot wait for itself, or be within itself")
    for lane in lanes:
        if lane >= known:
            return Rejection("invalid", f"there is no lane {lane}, only {known} of them")
    return unknown_lane(known, *others)


def unknown_lane(known: int, *ids: str) -> Rejection | None:
    """Why ids cannot be reported to; None if their lanes are there."""
    for one in ids:
        if lane_of_job(one) >= known:
            return Rejection("invalid", f"{one} names lane {lane_of_job(one)}, and there are only {known}")
    return None


def unknown(batch_id: str) -> Rejection:
    """Why there is nothing to be done with a batch that the lane does not know."""
    return Rejection("unknown_batch", f"no such batch: {batch_id} was never created, or ended too long ago")
