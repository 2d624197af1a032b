"""What a worker makes of the records in its partition."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.worker import assignments as assignments_module
from joblog.services.worker.assignments import Assignments, EndQueries, ReadProgress, Unreadable, read_assignment
from joblog.streams.contract.codec import encode
from joblog.streams.contract.wire import CancelJob
from joblog.streams.metrics import Meters

WORKER = "w:1:00000000"
LANES = 2
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
def test_a_record_that_cannot_be_read_is_told_and_the_next_one_taken(value: bytes | None) -> None:
    partition = Partition([Record(value), Record(encode(CANCEL))])
    assignments = Assignments(partition, WORKER, LANES, Meters(), ReadProgress(0, 0.0), None)  # type: ignore[arg-type]
    (record, unreadable), (_, cancel) = assignments.take(0)
    assert isinstance(unreadable, Unreadable)
    assert (unreadable.code, unreadable.error) == ("undecodable", None)
    assert (record.offset(), record.value()) == (7, value)
    assert cancel == CANCEL


@pytest.mark.parametrize("lane", [LANES, 4096, 2**53 - 1])
def test_a_run_of_a_lane_that_is_not_there_cannot_be_read_as_it_could_not_be_reported(lane: int) -> None:
    run = {"type": "job.run", "job_id": "j", "lease": 2, "lane": lane, "task": "t", "queue": "q", "attempt": 1}
    value = encode({**run, "spec": {}, "ready_ms": 0})
    assert read_assignment(encode({**run, "lane": 0, "spec": {}, "ready_ms": 0}), LANES).job_id == "j"  # type: ignore[union-attr]
    assert isinstance(read_assignment(value, LANES), Unreadable)


def test_an_error_that_nobody_foresaw_while_a_record_is_read_is_told_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def decode(self, _value: bytes) -> None:
            raise MemoryError("no room")

    monkeypatch.setattr(assignments_module, "_DECODER", Broken())
    found = read_assignment(encode(CANCEL), LANES)
    assert isinstance(found, Unreadable)
    assert (found.code, type(found.error)) == ("internal_error", MemoryError)


def test_a_partition_is_read_until_the_last_question_whose_answer_the_reader_has_reached() -> None:
    progress = ReadProgress(7, now=10.0)
    progress.expect(7, asked_at=11.0)
    assert progress.read_at == 11.0  # nothing new is there: a quiet partition is read, too
    progress.expect(9, asked_at=12.0)
    progress.advance(8)
    assert progress.read_at == 11.0
    progress.expect(10, asked_at=13.0)
    progress.advance(9)
    assert progress.read_at == 12.0
    progress.advance(20)
    assert progress.read_at == 13.0


@given(st.lists(st.tuples(st.sampled_from(["write", "read", "ask"]), st.integers(0, 3))))
def test_everything_written_before_the_instant_that_progress_tells_was_read(steps: list[tuple[str, int]]) -> None:
    progress, end, read = ReadProgress(0, now=0.0), 0, 0
    written_at: list[int] = []  # of each offset
    for now, (step, count) in enumerate(steps, start=1):
        if step == "write":
            written_at += [now] * count
            end += count
        elif step == "read":
            read = min(end, read + count)
            progress.advance(read)
        else:
            progress.expect(end, asked_at=now)
        assert all(offset < read for offset, at in enumerate(written_at) if at <= progress.read_at)
        if read == end and step == "ask":
            assert progress.read_at == now


class Admin:
    """An admin client whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[Future[Any]] = []

    def list_offsets(self, wanted: dict[TopicPartition, Any], **options: Any) -> dict[TopicPartition, Future[Any]]:
        assert options["isolation_level"] is IsolationLevel.READ_COMMITTED
        self.asked.append(Future())
        return dict.fromkeys(wanted, self.asked[-1])


def test_the_end_is_asked_for_again_once_the_answer_is_there_and_it_is_time() -> None:
    admin = Admin()
    queries = EndQueries(admin, TopicPartition("assignments", 3), 2.0, Meters())  # type: ignore[arg-type]
    assert queries.answer(10.0) is None
    assert queries.answer(20.0) is None  # it waits for the first answer, however long that takes
    assert len(admin.asked) == 1
    admin.asked[0].set_result(SimpleNamespace(offset=7))
    assert queries.answer(20.5) == (7, 10.0)
    assert queries.answer(20.6) is None
    assert len(admin.asked) == 2
    admin.asked[1].set_result(SimpleNamespace(offset=8))
    assert queries.answer(20.7) == (8, 20.6)
    assert queries.answer(22.5) is None
    assert len(admin.asked) == 2


def test_an_end_that_no_broker_tells_is_counted_and_asked_for_again() -> None:
    admin, meters = Admin(), Meters()
    queries = EndQueries(admin, TopicPartition("assignments", 3), 2.0, meters)  # type: ignore[arg-type]
    queries.answer(10.0)
    admin.asked[0].set_exception(KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)))
    assert queries.answer(12.0) is None
    assert queries.answer(12.1) is None
    assert len(admin.asked) == 2
    labels = {"role": "worker", "code": "LEADER_NOT_AVAILABLE"}
    assert meters.registry.get_sample_value("joblog_kafka_errors_total", labels) == 1
