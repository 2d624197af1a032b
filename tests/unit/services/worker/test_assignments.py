"""What a worker hears of records that nobody could have written to it."""

from typing import Any

import pytest
from joblog.services.worker.assignments import Assignments, Unreadable
from joblog.streams.contract.codec import encode
from joblog.streams.contract.wire import CancelJob
from joblog.streams.metrics import Meters

WORKER = "w:1:00000000"
CANCEL = CancelJob(job_id="j", lease=1, reason="deleted")


class Record:
    """A record for the worker, as confluent-kafka gives it."""

    def __init__(self, value: bytes | None) -> None:
        self._value = value

    def error(self) -> None:
        return None

    def key(self) -> bytes:
        return WORKER.encode()

    def value(self) -> bytes | None:
        return self._value

    def topic(self) -> str:
        return "assignments"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


class Partition(list[Record]):
    """A consumer of these records."""

    def poll(self, _timeout_s: float) -> Record:
        return self.pop(0)

    def consume(self, _count: int, _timeout_s: float) -> list[Record]:
        found, self[:] = list(self), []
        return found


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"not JSON",
        b'{"type":"job.cancel","job_id":"\xc3(","lease":1,"reason":"deleted"}',
        b'{"type":"job.cancel","new":' + b"[" * 100_000,
        b'{"type":"job.cancel","job_id":"\\ud800","lease":1,"reason":"deleted"}',
    ],
)
def test_a_record_that_cannot_be_read_is_counted_and_the_next_one_taken(value: bytes | None) -> None:
    meters = Meters()
    partition = Partition([Record(value), Record(encode(CANCEL))])
    assert Assignments(partition, WORKER, 2, meters).take(0) == [CANCEL]  # type: ignore[arg-type]
    labels = {"role": "worker", "reason": "undecodable"}
    assert meters.registry.get_sample_value("joblog_quarantined_records_total", labels) == 1


def test_a_run_whose_task_is_no_utf8_is_reported_as_failed() -> None:
    value = b'{"type":"job.run","job_id":"j","lease":2,"lane":1,"task":"\xc3(","queue":"q","attempt":1,"spec":{}}'
    [found] = Assignments(Partition([Record(value)]), WORKER, 2, Meters()).take(0)  # type: ignore[arg-type]
    assert isinstance(found, Unreadable)
    assert (found.lane, found.report.job_id, found.report.lease) == (1, "j", 2)
    assert "The assignment cannot be read: " in found.report.exception.message


@pytest.mark.parametrize("lane", [2, 4096, 2**53 - 1])
@pytest.mark.parametrize("task", ["t", 5])
def test_a_run_of_a_lane_that_is_not_there_is_not_taken_as_nobody_could_be_told_of_it(lane: int, task: Any) -> None:
    run = {"type": "job.run", "job_id": "j", "lease": 2, "lane": lane, "task": task, "queue": "q", "attempt": 1}
    partition = Partition([Record(encode({**run, "spec": {}, "ready_ms": 0}))])
    assert Assignments(partition, WORKER, 2, Meters()).take(0) == []  # type: ignore[arg-type]
