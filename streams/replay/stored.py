"""An event of a job as it lies in the log."""

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


class _Envelope(Struct):
    type: str
    data: Raw
    subject: str = ""
    time: str = "1970-01-01T00:00:00.000Z"
    causationid: str = ""


_envelope: Final = json.Decoder(_Envelope).decode
_event: Final = json.Decoder(ReadEvent).decode


def stored_event(value: bytes) -> StoredEvent | None:
    """The event in a record of the topic `events`; None for those of workers and rejected commands.

    Raises msgspec.DecodeError for what no elector wrote.
    """
    envelope = _envelope(value)
    if not envelope.type.startswith("job."):
        return None
    return StoredEvent(envelope.subject, _event(envelope.data), parse_time_ms(envelope.time), envelope.causationid)
