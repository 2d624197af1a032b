"""Requests of other services: CloudEvents on a topic of the detection service.

They are plain domain events. Their senders know nothing of jobs; the manager creates those.
"""

import time
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from joblog.streams.contract.cloudevents import Headers, explained, read_envelope
from joblog.streams.contract.fields import StrictMessage, Text
from joblog.streams.contract.timestamps import format_time
from joblog.streams.errors import InvalidData, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

TOPIC: Final = "detection.requests"
PARTITIONS: Final = 2
SOURCE: Final = "/detection/producer"
_POLL_S: Final = 0.05


#: A run's id is part of paths that are removed afterwards, so it must not lead out of their directory.
RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$")]


class RunRequested(StrictMessage):
    """Detect what is in a photograph; it may not have been uploaded to this path yet."""

    type: Literal["detection.run_requested"] = "detection.run_requested"
    run_id: RunId
    photograph: Text


class RunWithdrawn(StrictMessage):
    """The result of a run is not needed any more."""

    type: Literal["detection.run_withdrawn"] = "detection.run_withdrawn"
    run_id: RunId


Request = Annotated[RunRequested | RunWithdrawn, Field(discriminator="type")]
_REQUESTS: Final = TypeAdapter[RunRequested | RunWithdrawn](Request)


class Telling(Protocol):
    """Something that is told about a run, as a CloudEvent."""

    @property
    def type(self) -> str: ...

    @property
    def run_id(self) -> str: ...

    def model_dump(self, *, mode: str, exclude: set[str]) -> dict[str, Any]: ...


def write_request(request: Telling, event_id: str, now_ms: int) -> bytes:
    """The request as a CloudEvent in JSON."""
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": request.type,
            "subject": request.run_id,
            "time": format_time(now_ms),
            "datacontenttype": "application/json",
            "data": request.model_dump(mode="json", exclude={"type"}),
        }
    )


def read_request(value: bytes | None, headers: Headers | None) -> RunRequested | RunWithdrawn:
    """The request in a record. Raises ContractError if it is none."""
    envelope = read_envelope(value, headers)
    try:
        return _REQUESTS.validate_python({**envelope.data, "type": envelope.type})
    except ValidationError as exc:
        raise InvalidData(explained(exc)) from exc


def create_topic(config: KafkaConfig, topic: str, *, timeout_s: float = 60) -> None:
    """Create a topic of requests or uploads if it does not exist, and return when it has leaders.

    Raises TopicsError if it cannot be created, or has no leader in time.
    """
    client = clients.admin(config)  # must outlive its future
    deadline = time.monotonic() + timeout_s
    # Faust, which triggers run on, reads what is compressed with lz4 only with a further package.
    settings = {"compression.type": "uncompressed"}
    wanted = NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1, config=settings)
    try:
        client.create_topics([wanted], operation_timeout=timeout_s)[topic].result(timeout_s)
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise TopicsError(f"topic {topic} could not be created: {exc.args[0].str()}") from exc
    while not _is_served(client, topic, timeout_s):
        if time.monotonic() > deadline:
            raise TopicsError(f"topic {topic} has no leader after {timeout_s:.0f} s")
        time.sleep(_POLL_S)


def _is_served(client: AdminClient, topic: str, timeout_s: float) -> bool:
    found = client.list_topics(timeout=timeout_s).topics.get(topic)
    if found is None or found.error is not None:
        return False
    return len(found.partitions) == PARTITIONS and all(one.leader >= 0 for one in found.partitions.values())
