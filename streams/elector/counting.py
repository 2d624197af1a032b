"""Counts what a committed turn led to in one lane: in batches, as a job passes here several times."""

from collections import Counter, defaultdict

from joblog.streams.contract.states import FINAL_STATES
from joblog.streams.elector.membership import ROLE
from joblog.streams.lane.output import LaneOutput
from joblog.streams.metrics import Meters


def count(meters: Meters, out: LaneOutput, now_ms: int) -> None:
    """Count it; the jobs that ended did so at `now_ms`."""
    meters.inc("joblog_log_events_total", by=len(out.events))
    for (name, *labels), times in out.counts.items():
        if name == "joblog_quarantined_records_total":
            labels.insert(0, ROLE)
        meters.inc(name, *labels, by=times)
    for names, times in Counter((job.queue, job.task) for job in out.created).items():
        meters.inc("joblog_jobs_created_total", *names, by=times)
        _show(meters, *names)
    _count_ends(meters, out, now_ms)


def _show(meters: Meters, queue: str, task: str) -> None:
    """Export the series of what may happen to such jobs: a rate needs to see them before they rise."""
    for name in ("joblog_job_retries_total", "joblog_jobs_lost_total", "joblog_job_end_to_end_seconds"):
        meters.show(name, queue, task)
    for state in FINAL_STATES:
        meters.show("joblog_jobs_ended_total", queue, task, state)


def _count_ends(meters: Meters, out: LaneOutput, now_ms: int) -> None:
    took: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for job in out.ended:
        took[job.queue, job.task, job.state].append(max(now_ms - job.created_ms, 0) / 1000)
    for (queue, task, state), seconds in took.items():
        meters.inc("joblog_jobs_ended_total", queue, task, state, by=len(seconds))
        meters.observe_all("joblog_job_end_to_end_seconds", seconds, queue, task)
