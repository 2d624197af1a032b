"""How records are sent, with a stand-in for Kafka's client."""

from typing import Any

from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.recurring.sender import Record, Sender


class Stored:
    """A record that was acknowledged."""

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Small:
    """A producer that holds two records at once."""

    def __init__(self) -> None:
        self.held: list[tuple[bytes, Any]] = []
        self.stored: list[bytes] = []

    def list_topics(self, *_: Any) -> None:
        """They are known."""

    def produce(self, _topic: str, value: bytes, *rest: Any) -> None:
        if len(self.held) == 2:
            raise BufferError("Local: Queue full")
        self.held.append((value, rest[2]))

    def flush(self, _timeout_s: float) -> int:
        for value, on_delivery in self.held:
            self.stored.append(value)
            on_delivery(None, Stored())
        self.held.clear()
        return 0


def test_more_than_the_client_holds_at_once_is_sent_all_the_same() -> None:
    """Else the same would be sent again at every tick, in vain, and with it whatever else is due."""
    sender, small = Sender(KafkaConfig("127.0.0.1:1"), "test"), Small()
    sender.close()
    sender._producer = small  # type: ignore[assignment]
    values = [str(number).encode() for number in range(5)]
    assert sender.send([Record("t", 0, None, value) for value in values]) is not None
    assert small.stored == values
