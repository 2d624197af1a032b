"""An event of a job, or of a batch, as it lies in the log."""

from typing import Final, NamedTuple

from joblog.streams.contract import wire
from joblog.streams.contract.timestamps import parse_time_ms
from msgspec import Raw, Struct, json


class ReadEvent(wire.JobEvent, frozen=True):
    """The data of a job's event as they are decoded here: msgspec knows no union with Raw."""

    spec: Raw = wire.NO_RAW

    @property
    def created_with(self) -> bytes | None:
        """The JobSpec of a first event, as JSON."""
        return None if self.spec is wire.NO_RAW else bytes(self.spec)


class StoredEvent(NamedTuple):
    """An event, the time it bears (unix milliseconds), and what led to it."""

    job_id: str
    event: ReadEvent
    at_ms: int
    cause: str


class StoredBatch(NamedTuple):
    """An event of a batch, the time it bears (unix milliseconds), and what led to it."""

    batch_id: str
    event: wire.BatchEvent
    at_ms: int
    cause: str


class _Envelope(Struct):
    type: str
    data: Raw
    subject: str = ""
    time: str = "1970-01-01T00:00:00.000Z"
    causationid: str = ""


_envelope: Final = json.Decoder(_Envelope).decode
_event: Final = json.Decoder(ReadEvent).decode
_batch_event: Final = json.Decoder(wire.BatchEvent).decode


def stored_event(value: bytes) -> StoredEvent | None:
    """The event in a record of the topic `events`; None for those of workers and rejected commands.

    Raises msgspec.DecodeError for what no elector wrote.
    """
    found = stored_fact(value)
    return found if isinstance(found, StoredEvent) else None


def stored_fact(value: bytes) -> StoredEvent | StoredBatch | None:
    """The event of a job or of a batch in a record of the topic; raises as `stored_event` does."""
    one = _envelope(value)
    if one.type.startswith("job."):
        return StoredEvent(one.subject, _event(one.data), parse_time_ms(one.time), one.causationid)
    if one.type.startswith("batch."):
        return StoredBatch(one.subject, _batch_event(one.data), parse_time_ms(one.time), one.causationid)
    return None
