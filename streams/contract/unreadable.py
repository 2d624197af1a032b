"""The run that an unreadable record speaks of: it must not stay Processing for ever.

Its worker has said, or heard, all it has to; it renews its lease, so nobody would ever call it lost. If at least
job and lease can be made out, the run is failed with the reason instead, and the job's retry policy decides.
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
    """What to hear instead of a worker's report on a run that cannot be read; None if it is not one."""
    try:
        said = _report.decode(value or b"")
    except NOT_READABLE:
        return None
    if not said.type.startswith("run."):
        return None
    return _failed(said.job_id, said.lease, said.worker, f"The report {said.type} cannot be read: {reason}")


def failed_by_assignment(value: bytes | None, worker: str, reason: str) -> tuple[int, wire.RunFailed] | None:
    """The report of a worker that cannot read what it shall run, and the lane it goes to; None if it is no run."""
    try:
        said = _assignment.decode(value or b"")
    except NOT_READABLE:
        return None
    if said.type != "job.run":
        return None
    return said.lane, _failed(said.job_id, said.lease, worker, f"The assignment cannot be read: {reason}")


def _failed(job_id: str, lease: int, worker: str, reason: str) -> wire.RunFailed:
    kind = "joblog.Unreadable"
    text = reason[:REASON_CHARACTERS_MAX].replace("\x00", "\N{REPLACEMENT CHARACTER}")  # Postgres keeps no NUL
    exception = wire.JobException(kind, text, "", (kind,))
    return wire.RunFailed(job_id=job_id, lease=lease, worker=worker, exception=exception, duration_ms=0, started_ms=0)
