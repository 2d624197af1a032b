"""Jobs, rejected commands and dead letters as texts, for messages that say what happened instead."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from joblog.projections.monitor.models import HistoryEntry, JobDetails, Rejected

SHOWN_MAX: Final = 10
_REASON_MAX: Final = 300


class DeadLetter(NamedTuple):
    """An event that could not become jobs: `code` and `reason` are those of its record in the topic `deadletters`."""

    topic: str
    offset: int
    code: str
    reason: str
    value: bytes | None


def call_of(job: JobDetails) -> str:
    """The arguments of a job as in its call."""
    given = [repr(one) for one in job.args or ()] + [f"{name}={one!r}" for name, one in (job.kwargs or {}).items()]
    return f"({', '.join(given)})"


def why_of(job: JobDetails) -> str:
    """Why a job is as it is, behind a colon; nothing if nobody said so."""
    said = [f"waits for {job.waits_for}"] if job.waits_for else []
    said += [job.reason[:_REASON_MAX]] if job.reason else []
    return f": {'; '.join(said)}" if said else ""


def history_of(job: JobDetails) -> str:
    """What happened to a job, a line for each event, oldest first."""
    return "\n".join(["history:", *map(_entry, reversed(job.history))])


def jobs_of(jobs: Sequence[JobDetails]) -> list[str]:
    """The last of these jobs, a line each, with why they are as they are."""
    return _last(
        "jobs:", [f"{job.state} {job.task} {call_of(job)} queue={job.queue} {job.id}{why_of(job)}" for job in jobs]
    )


def rejections_of(rejected: Sequence[Rejected]) -> list[str]:
    """The last rejected commands; nothing if there are none."""
    lines = [f"{one.command} of {one.job_id}: {one.code}, {one.reason}" for one in rejected]
    return _last("rejected commands:", lines) if lines else []


def letters_of(parked: Iterable[DeadLetter]) -> list[str]:
    """The last dead letters; nothing if there are none."""
    lines = [f"{one.topic}/{one.offset}: {one.code}, {one.reason[:_REASON_MAX]}" for one in parked]
    return _last("dead letters:", lines) if lines else []


def _last(head: str, lines: Sequence[str]) -> list[str]:
    more = [f"  and {len(lines) - SHOWN_MAX} before"] if len(lines) > SHOWN_MAX else []
    return [head, *(f"  {line}" for line in lines[-SHOWN_MAX:] or ["none"]), *more]


def _entry(one: HistoryEntry) -> str:
    what = one.state if one.type == f"job.{one.state.lower()}" else one.type
    said = [f"attempt {one.attempt} on {one.data['worker']}"] if one.type == "job.processing" else []
    said += [f"waits for {one.data['waits_for']}"] if one.data.get("waits_for") else []
    said += [one.reason[:_REASON_MAX]] if one.reason else []
    replaced = " (replaced)" if one.traversed else ""
    return (
        f"  {one.at:%Y-%m-%d %H:%M:%S.%f}"[:-3]
        + f" {one.version:>2} {what}{replaced}{': ' if said else ''}{', '.join(said)}"
    )
