"""Assignments as the worker's reader hands them on."""

from dataclasses import dataclass

from joblog.services.worker.assignments import Arrived
from joblog.streams.contract.codec import encode
from joblog.streams.contract.wire import AnyAssignment

WORKER = "w:1"


@dataclass(frozen=True)
class Record:
    """A record for the worker, as confluent-kafka gives it."""

    raw: bytes | None
    at: int

    def topic(self) -> str:
        return "assignments"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return WORKER.encode()

    def value(self) -> bytes | None:
        return self.raw


def record_of(value: bytes | None, offset: int = 7) -> Record:
    return Record(value, offset)


def arrived(assignment: AnyAssignment, offset: int = 7) -> Arrived:
    return record_of(encode(assignment), offset), assignment
