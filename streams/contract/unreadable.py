"""The run that an unreadable record is about: it must not stay Processing for ever.

Its worker has sent its report, or will never start the run, and goes on renewing its lease, so the run would never
count as lost. If at least job and lease can be read, the run fails with the reason, and the job's retry policy
decides.
"""

from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.fields import Count, Version
from msgspec import Struct, json

REASON_CHARACTERS_MAX: Final = 2_000
#: What msgspec raises for bytes that it cannot read: DecodeError is a ValueError, and so is the UnicodeDecodeError
#: for text that is no UTF-8, which is no MsgspecError.
NOT_READABLE: Final = (ValueError, RecursionError)


class _Report(Struct):
    type: str
    job_id: wire.JobId
    lease: Version
    worker: wire.WorkerId


class _Assignment(Struct):
    type: str
    job_id: wire.JobId
    lease: Version
    lane: Count


_report: Final = json.Decoder(_Report)
_assignment: Final = json.Decoder(_Assignment)


def failed_by_report(value: bytes | None, reason: str) -> wire.RunFailed | None:
    """The report to take instead of one on a run that cannot be read; None if it is no report on a run."""
    try:
        found = _report.decode(value or b"")
    except NOT_READABLE:
        return None
    if not found.type.startswith("run."):
        return None
    return _failed(found.job_id, found.lease, found.worker, f"The report {found.type} cannot be read: {reason}")


def failed_by_assignment(value: bytes | None, worker: str, reason: str) -> tuple[int, wire.RunFailed] | None:
    """The lane of a run that a worker cannot read, and the report to send there; None if it is no run."""
    try:
        found = _assignment.decode(value or b"")
    except NOT_READABLE:
        return None
    if found.type != "job.run":
        return None
    return found.lane, _failed(found.job_id, found.lease, worker, f"The assignment cannot be read: {reason}")


def _failed(job_id: str, lease: int, worker: str, reason: str) -> wire.RunFailed:
    kind = "joblog.Unreadable"
    text = reason[:REASON_CHARACTERS_MAX].replace("\x00", "\N{REPLACEMENT CHARACTER}")  # Postgres keeps no NUL
    exception = wire.JobException(kind, text, "", (kind,))
    return wire.RunFailed(job_id=job_id, lease=lease, worker=worker, exception=exception, duration_ms=0, started_ms=0)
