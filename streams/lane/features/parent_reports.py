"""What a job makes of the report that a parent of it has ended."""

from joblog.streams.contract import wire
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.parents import condition, ends, several, told
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, ParentNoted


def take(pipeline: Pipeline, report: wire.ParentEnded, cause: str, election: Election, out: LaneOutput) -> None:
    """Let the job go on, or note how one of its parents ended while it waits for others."""
    job = pipeline.store.jobs.get(report.job_id)
    if job is None or (parents := several(job)) is None:
        pipeline.report(report, cause, election, out)
        return
    note = ParentNoted(report.parent, told(job, report), report.reason)
    if pipeline.apply(job, note, cause, election, out) is not None:
        out.counts["joblog_stale_reports_total", "parent.ended"] += 1
        return
    if condition(parents, ends(pipeline.store.jobs[job.id])) != "wait":
        pipeline.report(report, cause, election, out)
