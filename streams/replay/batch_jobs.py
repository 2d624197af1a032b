"""What becomes of the jobs of a batch that would have begun, or been cancelled, at other times, as their inputs."""

from joblog.streams.contract import wire
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.states import AWAITING, FINAL_STATES, PROCESSING
from joblog.streams.replay.batches import Began, shifted
from joblog.streams.replay.continuations import Step, insert
from joblog.streams.replay.history import Cancelled, History, Outside, Run


def steps_in(history: History, began: Began) -> list[Step]:
    """The steps of a job of a batch, as they would have been if that began, and was cancelled, at these times."""
    steps = list(history.steps)
    created, since_ms = history.create, history.created_ms
    if waits_for_start(created) and began.recorded != began.simulated:
        told = next(
            (one for one in steps if isinstance(one, Outside) and isinstance(one.what, wire.ParentEnded)), None
        )
        at_ms = shifted(None if told is None else told.at_ms, began.recorded, began.simulated, since_ms)
        if told is not None:
            steps.remove(told)
        if at_ms is not None:
            insert(steps, Outside(at_ms, _start(history), AWAITING), before_runs=told is not None)
    is_known = any(isinstance(one, Outside) and isinstance(one.what, Cancelled) for one in steps)
    if began.cancelled != began.would_be_cancelled:
        steps = [one for one in steps if not (isinstance(one, Outside) and isinstance(one.what, Cancelled))]
        is_known = False
    if began.would_be_cancelled is not None and not is_known:
        _cancel(steps, history, began)
    return steps


def waits_for_start(created: wire.CreateJob | wire.JobSpec) -> bool:
    """Whether a job is created to wait for the start of its own batch."""
    parent = created.parent
    return parent is not None and parent.kind is ParentKind.BATCH and parent.job_id == created.batch


def _start(history: History) -> wire.ParentEnded:
    batch = history.create.batch or ""
    why = f"Batch {batch} has started"
    return wire.ParentEnded(job_id=history.job.id, parent=batch, state=PROCESSING, run=True, reason=why)


def _cancel(steps: list[Step], history: History, began: Began) -> None:
    """Put the cancellation where it comes: before what another job's deletion by it leads to.

    One that did not stop the job was not known in its lane until it ended.
    """
    assert began.would_be_cancelled is not None
    at_ms = max(began.would_be_cancelled, history.created_ms)
    if began.cancelled == began.would_be_cancelled:
        start_ms = max(history.starts, default=0)
        end_ms = next((one for one, state in history.ends if one >= start_ms and state in FINAL_STATES), start_ms)
        at_ms = max(at_ms, end_ms + 1)
    starts = iter(history.starts)
    times = [next(starts, 0) if isinstance(one, Run) else one.at_ms for one in steps]
    place = next((n for n, time in enumerate(times) if time >= at_ms), len(steps))
    what = Cancelled(f"Batch {history.create.batch} was cancelled", began.running)
    steps.insert(place, Outside(at_ms, what, AWAITING))
