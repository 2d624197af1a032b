"""A producer that breaks as librdkafka's does, and what takes its place."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from joblog.streams.delays.producer import LastingProducer, StillHeld
from joblog.streams.metrics import Meters

Report = Callable[[KafkaError | None, Any], None]


class FakeProducer:
    """After a fatal error it refuses records, without the flag; the first poll or flush raises the error itself."""

    def __init__(self) -> None:
        self.held: list[Report] = []
        self.is_broken = self.is_purged = self.is_raised = False
        self.is_stuck = False

    def __len__(self) -> int:
        return len(self.held)

    def produce(self, _topic: str, *, on_delivery: Report) -> None:
        if self.is_broken:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        self.held.append(on_delivery)

    def poll(self, _timeout: float) -> int:
        if self.is_broken and not self.is_raised:
            self.is_raised = True
            raise KafkaException(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True))
        return 0

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        reports, self.held = self.held, self.held if self.is_stuck else []
        for report in reports:
            report(KafkaError(KafkaError._PURGE_QUEUE) if self.is_purged else None, None)
        return len(self.held)

    def purge(self) -> None:
        self.is_purged = True


class Bench:
    def __init__(self) -> None:
        self.made: list[FakeProducer] = []
        self.meters = Meters()
        self.producer = LastingProducer(self._make, "delays", self.meters)
        self.reports: list[str | None] = []

    def _make(self) -> Producer:
        self.made.append(FakeProducer())
        return cast("Producer", self.made[-1])

    def send(self) -> None:
        self.producer.produce("t", on_delivery=lambda error, _: self.reports.append(error and error.name()))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("first", ["poll", "produce", "flush"])
def test_after_a_fatal_error_what_was_held_comes_back_as_failed_and_another_producer_works(
    bench: Bench, first: str
) -> None:
    bench.send()
    bench.made[0].is_broken = True
    if first == "produce":
        with pytest.raises(BufferError):
            bench.send()
    elif first == "flush":
        bench.producer.flush(1)
        assert bench.reports == []
    bench.producer.poll()
    assert bench.reports == ["_PURGE_QUEUE"]
    bench.send()
    assert [len(one) for one in bench.made] == [0, 1]
    bench.producer.flush(1)
    assert bench.reports == ["_PURGE_QUEUE", None]
    rebuilds = bench.meters.registry.get_sample_value("joblog_producer_rebuilds_total", {"role": "delays"})
    assert rebuilds == 1


def test_records_that_a_broken_producer_does_not_report_are_an_error_of_their_own(bench: Bench) -> None:
    bench.send()
    bench.made[0].is_broken = bench.made[0].is_stuck = True
    with pytest.raises(StillHeld, match="1 records"):
        bench.producer.poll()
    bench.send()
    assert len(bench.made) == 2
