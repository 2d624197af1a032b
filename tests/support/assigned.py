"""Assignments as the worker's reader hands them on."""

from joblog.services.worker.assignments import Arrived
from joblog.services.worker.execution.run import AssignmentRecord
from joblog.streams.contract.codec import encode
from joblog.streams.contract.wire import AnyAssignment

WORKER = "w:1"


def record_of(value: bytes | None, offset: int = 7) -> AssignmentRecord:
    return AssignmentRecord("assignments", 3, offset, WORKER.encode(), value)


def arrived(assignment: AnyAssignment, offset: int = 7) -> Arrived:
    return Arrived(record_of(encode(assignment), offset), assignment)
