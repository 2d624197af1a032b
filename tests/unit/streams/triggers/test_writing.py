import asyncio
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.triggers import writing
from joblog.streams.triggers.records import Outgoing, TooLarge
from joblog.streams.triggers.writing import Writer

AWAY = KafkaError(KafkaError._MSG_TIMED_OUT)
SIZE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "message size")


class Producer:
    """Answers each record as the script says: None is an acknowledgement, an exception is raised by the call."""

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.taken: list[bytes] = []
        self.reports: list[Any] = []

    def produce(
        self, _topic: str, value: bytes, _key: bytes, _partition: int, on_delivery: Any, **_headers: Any
    ) -> None:
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, Exception):
            raise answer
        self.taken.append(value)
        self.reports.append((on_delivery, answer))

    def poll(self, _: float) -> int:
        while self.reports:
            on_delivery, error = self.reports.pop(0)
            on_delivery(error, None)
        return 0

    def flush(self, _: float) -> int:
        return 0

    def close(self) -> None: ...


def written(monkeypatch: pytest.MonkeyPatch, script: list[Any], *values: bytes) -> tuple[Producer, Writer, Meters]:
    producer, meters = Producer(script), Meters()
    monkeypatch.setattr(writing.clients, "producer", lambda *_, **__: producer)
    monkeypatch.setattr(writing, "_POLL_S", 0.001)
    monkeypatch.setattr(writing, "_WAIT_S", 0.001)
    monkeypatch.setattr(writing, "_WAIT_S_MAX", 0.002)

    async def write() -> Writer:
        writer = Writer(KafkaConfig("x:1"), "c", "triggers", meters)
        try:
            await writer.write([Outgoing("t", None, value) for value in values])
        finally:
            await asyncio.to_thread(writer.close)
        return writer

    return producer, asyncio.run(asyncio.wait_for(write(), 10)), meters


def test_all_records_are_acknowledged_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    producer, writer, _ = written(monkeypatch, [], b"a", b"b")
    assert (producer.taken, writer.trouble) == ([b"a", b"b"], "")


def test_only_what_failed_is_sent_again_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    script = [None, AWAY, BufferError(), AWAY, refused, *[AWAY] * 20]
    producer, writer, meters = written(monkeypatch, script, b"a", b"b", b"c")
    assert producer.taken.count(b"a") == 1
    assert {b"b", b"c"} < set(producer.taken)
    assert (script, writer.trouble) == ([], "")
    labels = {"role": "triggers", "code": "TOPIC_AUTHORIZATION_FAILED"}
    assert meters.registry.get_sample_value("joblog_kafka_errors_total", labels) == 1


@pytest.mark.parametrize("refused", [SIZE, KafkaException(SIZE)], ids=["by the broker", "by the client"])
def test_what_kafka_refuses_for_its_size_is_told_when_it_has_the_rest(
    monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    script = [AWAY, refused, AWAY]
    with pytest.raises(TooLarge, match="size"):
        written(monkeypatch, script, b"a", b"b")
    assert script == []
