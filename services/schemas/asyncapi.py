"""The AsyncAPI 3.0 document: every topic as a channel, who sends and receives there, and the messages."""

from importlib.metadata import metadata
from typing import Any, Final

from joblog.services.schemas.messages import (
    ASSIGNMENTS,
    COMMANDS,
    EVENTS,
    REPORTS,
    Schema,
    Untitled,
    enveloped,
    merged,
    structured,
    summary_of,
    tag_of,
    tag_of_struct,
)
from joblog.streams.contract import deadletters, topics
from joblog.streams.contract.queue_settings import QueueSettings
from joblog.streams.contract.recurring import SUFFIXES
from joblog.streams.contract.topics import TOPICS, Topic, TopicNames
from joblog.streams.contract.wire import Timer
from joblog.streams.outbox.marks import Mark
from msgspec import Struct
from pydantic import BaseModel

#: The version of the Kafka bindings for AsyncAPI.
BINDINGS: Final = "0.5.0"
REF: Final = "#/components/schemas/{model}"
CLOUD_EVENT: Final = "application/cloudevents+json"
JSON: Final = "application/json"
PREFIX: Final = TopicNames().prefix

_ABOUT: Final = """\
Background jobs whose every transition is an event on a Kafka topic.

Commands ask, events tell what happened: these two topics are public. A command is a CloudEvent 1.0, in structured
mode or in binary mode (headers `ce_id`, `ce_source`, `ce_specversion`, `ce_type`, and the data as value); events
are written in structured mode. A command's record key is the queue for a new job, so that Kafka's default
partitioner finds its lane, or the job's id; a command in another lane is forwarded. All other topics are private
to Joblog's own roles.

Names of topics begin with the prefix of the installation. Each topic has one partition for each lane, unless its
channel says otherwise."""


def asyncapi() -> Schema:
    """The whole document."""
    about = metadata("joblog")
    messages = _messages()
    payloads = [one["payload"] for by_name in messages.values() for one in by_name.values()]
    definitions = merged(payloads)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Joblog",
            "version": about["Version"],
            "description": _ABOUT,
            "license": {"name": about["License-Expression"]},
        },
        "defaultContentType": CLOUD_EVENT,
        "channels": {topic.name: _channel(topic, messages[topic.name]) for topic in TOPICS},
        "operations": dict(_operations(messages)),
        "components": {
            "parameters": {
                "prefix": {"description": "What names of topics begin with in an installation.", "default": PREFIX}
            },
            "messages": {name: one for by_name in messages.values() for name, one in by_name.items()},
            "schemas": dict(sorted(definitions.items())),
        },
    }


def _channel(topic: Topic, messages: Schema) -> Schema:
    binding: Schema = {"topic": PREFIX + topic.name, "topicConfiguration": _configuration(topic)}
    if topic.partitions is not None:
        binding["partitions"] = topic.partitions
    return {
        "address": "{prefix}" + topic.name,
        "summary": topic.purpose,
        "description": f"Key: {topic.key}. {'Public.' if topic.public else 'Private to Joblog.'}",
        "parameters": {"prefix": {"$ref": "#/components/parameters/prefix"}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": {**binding, "bindingVersion": BINDINGS}},
    }


def _configuration(topic: Topic) -> Schema:
    """The topic's settings, typed as the bindings have them."""
    typed: dict[str, Any] = topic.configuration()
    typed["cleanup.policy"] = [typed["cleanup.policy"]]
    for name in ("retention.ms", "max.message.bytes"):
        if name in typed:
            typed[name] = int(typed[name])
    return typed


def _operations(messages: dict[str, Schema]) -> list[tuple[str, Schema]]:
    """Who sends to each topic, and who receives from it."""
    made = []
    for topic in TOPICS:
        refs = [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in messages[topic.name]]
        for action, roles in (("send", topic.written_by), ("receive", topic.read_by)):
            for role in roles.split(", "):
                operation = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{topic.name}"},
                    "summary": f"{role}: {action} {topic.name}",
                    "messages": refs,
                }
                made.append((f"{role.replace(' ', '-')}.{action}.{topic.name}", operation))
    return made


def _messages() -> dict[str, Schema]:
    """The messages of each topic, by their names."""
    made = {
        topics.COMMANDS.name: {tag_of(model): _public(model, topics.COMMANDS) for model in COMMANDS},
        topics.REPORTS.name: {tag_of_struct(kind): _private(kind, topics.REPORTS) for kind in REPORTS},
        topics.EVENTS.name: {tag_of(model): _public(model, topics.EVENTS) for model in EVENTS},
        topics.STATE.name: {"state": _state()},
        topics.ASSIGNMENTS.name: {tag_of_struct(kind): _private(kind, topics.ASSIGNMENTS) for kind in ASSIGNMENTS},
        topics.DEADLETTERS.name: {"deadletter": _deadletter()},
        topics.RECURRING.name: {
            (name := f"recurring.{kind.__name__.lower()}"): _aspect(name, kind, topics.RECURRING) for kind in SUFFIXES
        },
        topics.QUEUES.name: {"queue.settings": _aspect("queue.settings", QueueSettings, topics.QUEUES)},
        topics.OUTBOX.name: {
            "outbox.mark": _message("outbox.mark", Mark, topics.OUTBOX, JSON, structured(Mark, REF))
        },
    }
    return made | {topic.name: {f"timer.{topic.name}": _timer(topic)} for topic in topics.DELAYS}


def _public(model: type[BaseModel], topic: Topic) -> Schema:
    return _message(tag_of(model), model, topic, CLOUD_EVENT, enveloped(model, REF))


def _private(kind: type[Struct], topic: Topic) -> Schema:
    return _message(tag_of_struct(kind), kind, topic, JSON, structured(kind, REF))


def _aspect(name: str, kind: type[BaseModel], topic: Topic) -> Schema:
    payload = kind.model_json_schema(ref_template=REF, schema_generator=Untitled)
    return _message(name, kind, topic, JSON, payload)


def _timer(topic: Topic) -> Schema:
    return _message(f"timer.{topic.name}", Timer, topic, JSON, structured(Timer, REF))


def _message(name: str, kind: type, topic: Topic, content: str, payload: Schema) -> Schema:
    return {
        "name": name,
        "title": kind.__name__,
        "summary": summary_of(kind),
        "contentType": content,
        "payload": payload,
        "bindings": _key(topic),
    }


def _key(topic: Topic) -> Schema:
    return {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": BINDINGS}}


def _state() -> Schema:
    return {
        "name": "state",
        "title": "State",
        "summary": "MessagePack of electors, for themselves: a live job, a worker, or who owns the lane.",
        "contentType": "application/msgpack",
        "payload": {"description": "Not part of the contract. A tombstone when a job has ended."},
        "bindings": _key(topics.STATE),
    }


def _deadletter() -> Schema:
    names = [name for name, _ in deadletters.headers("", "", "", "", 0, 0)]
    return {
        "name": "deadletter",
        "title": "DeadLetter",
        "summary": "A record that could not be processed, as it came; its headers say why, and where it was.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in names},
            "required": names,
        },
        "payload": {"description": f"The record's value, its first {deadletters.VALUE_BYTES_MAX} bytes."},
        "bindings": _key(topics.DEADLETTERS),
    }
