"""Until when a job may start, and run: the rules of `deadline` and `expires_in_s`.

Both hold for the whole life of a job, whoever requeues it meanwhile:

- a job that has not started in `expires_in_s` after its creation, or that waits at its deadline, for a retry too, is
  Deleted;
- a run that lasts beyond the deadline is cancelled, and the job is Failed, since its work is half done. No retry
  follows that would be due after the deadline.

Time is the elector's time of day, by which all events are written.
"""

from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.states import FINAL_STATES, PROCESSING
from joblog.streams.contract.timestamps import format_time
from joblog.streams.lane.job import Job, deleted, failed

#: The exception of a run that lasted beyond the deadline.
DEADLINE_PASSED: Final = "joblog.DeadlinePassed"


def over_at(job: Job) -> int:
    """When the job has to be ended if it is still in its state (unix milliseconds); 0 for never."""
    extras = job.extras
    if extras is None or job.state in FINAL_STATES:
        return 0
    deadline_ms, start_by_ms = extras.deadline_ms, extras.start_by_ms
    if not start_by_ms or job.state is PROCESSING or job.attempt:
        return deadline_ms
    return min(deadline_ms, start_by_ms) if deadline_ms else start_by_ms


def is_too_late(job: Job, at_ms: int) -> bool:
    """Whether the deadline allows no run of the job that starts then."""
    return job.extras is not None and 0 < job.extras.deadline_ms <= at_ms


def ended(job: Job) -> wire.JobEvent:
    """The event that ends a job at `over_at`."""
    assert job.extras is not None
    end_ms, deadline_ms = over_at(job), job.extras.deadline_ms
    if job.state is PROCESSING:
        text = f"the run was cancelled at the job's deadline, {format_time(deadline_ms)}"
        exception = wire.JobException(DEADLINE_PASSED, text, "", (DEADLINE_PASSED,))
        return failed(job, exception, f"{DEADLINE_PASSED}: {text}")
    if end_ms == deadline_ms:
        return deleted(job, f"Expired: not started before its deadline, {format_time(deadline_ms)}")
    return deleted(job, f"Expired: not started within {(end_ms - job.created_ms) / 1000:g} s of its creation")
