"""A transition of a job as hooks get to see it, read from its event."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.states import State
from joblog.streams.contract.unreadable import NOT_READABLE
from joblog.streams.errors import UndecodableRecord
from msgspec import Raw, Struct, json


class _Data(Struct):
    """The data of a job's event, without what it was created with."""

    version: int
    state: State
    attempt: int
    queue: str
    task: str
    reason: str | None = None
    name: str | None = None
    note: str | None = None
    traversed: bool = False
    due: datetime | None = None
    worker: str | None = None
    result: Raw = wire.NO_RAW
    duration_ms: float | None = None
    exception: wire.JobException | None = None


class _Envelope(Struct):
    type: str
    data: Raw
    subject: str = ""
    time: datetime | None = None
    causationid: str | None = None


_envelope: Final = json.Decoder(_Envelope).decode
_data: Final = json.Decoder(_Data).decode


@dataclass(frozen=True, slots=True)
class Transition:
    """A job came into a state.

    - version: of the job's event; with the job's id it names the transition, also when a hook is called again.
    - traversed: a filter elected another state after this one: a failure that is retried.
    - due: of Scheduled. worker: of a run. exception, duration_ms: of the run that ended.
    - cause: what led to it. place: where it lies in the log, `topic/partition@offset`.
    """

    job_id: str
    version: int
    state: State
    attempt: int
    queue: str
    task: str
    at: datetime
    reason: str | None
    traversed: bool
    due: datetime | None
    worker: str | None
    exception: wire.JobException | None
    duration_ms: float | None
    cause: str | None
    place: str
    result_json: bytes

    @property
    def result(self) -> Any:
        """What the task returned; None for none."""
        return json.decode(self.result_json)


def read_transition(value: bytes | None, place: str) -> Transition | None:
    """The transition in a record of `events`; None for other events. Raises UndecodableRecord."""
    try:
        envelope = _envelope(value or b"")
        if not envelope.type.startswith("job."):
            return None
        data = _data(envelope.data)
        if data.name is not None or data.note is not None:
            return None
        if envelope.time is None or not envelope.subject:
            raise UndecodableRecord("the event has no subject, or no time")
    except NOT_READABLE as error:
        raise UndecodableRecord(str(error)) from error
    return Transition(
        envelope.subject,
        data.version,
        data.state,
        data.attempt,
        data.queue,
        data.task,
        envelope.time,
        data.reason,
        data.traversed,
        data.due,
        data.worker,
        data.exception,
        data.duration_ms,
        envelope.causationid,
        place,
        bytes(data.result),
    )
