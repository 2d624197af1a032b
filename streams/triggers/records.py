"""Records as they come from Kafka, and as they are to be sent."""

from typing import Final, NamedTuple

from joblog.streams.contract.record_headers import Headers

#: The key decides on the partition.
BY_KEY: Final = -1


class Record(NamedTuple):
    """A record as it came from Kafka."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def place(self) -> str:
        """Where it is; nothing else is there, ever."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class TooLarge(Exception):
    """Kafka refuses records for their size, and will again."""


class Outgoing(NamedTuple):
    """A record to be sent."""

    topic: str
    key: str | bytes | None
    value: bytes | None
    partition: int = BY_KEY
    headers: Headers | None = None
