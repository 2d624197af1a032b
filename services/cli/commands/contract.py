"""`joblog contract check|cases`: what Joblog would do with the records of a producer in any language."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException, Message, TopicPartition
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_rows
from joblog.services.cli.values import settings_of
from joblog.services.conformance.cases import document
from joblog.services.conformance.judge import Judge, Outcome, SentRecord
from joblog.services.conformance.records import read_records
from joblog.services.settings.model import Settings
from joblog.streams.contract.record_headers import headers_of
from joblog.streams.errors import InvalidData, TopicsError
from joblog.streams.kafka.clients import reader
from joblog.streams.kafka.last_records import partitions_of, read_to_end, watermarks
from msgspec import json

app = typer.Typer(no_args_is_help=True)

_COLUMNS = ("place", "outcome", "id", "job_id", "event", "code", "reason")
_READ_TIMEOUT_S = 60.0


@app.callback()
def contract() -> None:
    """Check what producers send."""


@app.command()
def check(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Files with one CloudEvent a line, or records: objects with value, key and headers.",
            show_default=False,
        ),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(help="Check the records of this topic instead, by its full name.", show_default=False),
    ] = None,
    *,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say of each record whether Joblog would take it, refuse it and why, or know its job already.

    Nothing is sent: the electors' own code decides in memory, with the lanes and shards of the settings. Let your
    producer write to a test topic that has as many partitions as there are lanes, and check that with --topic: keys,
    headers and partitions are then as they really are. A record that comes in another lane than its job's is
    forwarded, and a note says so. Exits with 1 if a record is refused.

    Example: joblog contract check events.jsonl --output json
    """
    if (topic is None) == (not files):
        raise InvalidData("give files, or --topic with the name of a topic")
    settings = settings_of(ctx)
    found = _topic_records(settings, topic) if topic is not None else _file_records(files or [])
    counts: Counter[str] = Counter()
    print_rows(_judged(settings, found, counts), _COLUMNS, output)
    forwarded = counts.pop("forwarded", 0)
    note(", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome))
    if forwarded:
        note(
            f"{forwarded} would be forwarded from another lane than their job's: key each record with the name of "
            "its queue, and choose partitions with murmur2, Kafka's default for keys"
        )
    if counts[Outcome.REFUSED]:
        raise typer.Exit(1)


@app.command()
def cases() -> None:
    """Print the conformance cases: records to send with your producer, and what must become of each, as JSON.

    They are for an installation with the lanes that the document names. `value_base64` is a value that is not text.

    Example: joblog contract cases > cases.json
    """
    print(json.format(json.encode(document()), indent=2).decode())


def _judged(
    settings: Settings, found: Iterator[tuple[str, SentRecord]], counts: Counter[str]
) -> Iterator[Mapping[str, Any]]:
    judge = Judge(settings.lanes, settings.shards_served)
    for place, record in found:
        verdict = judge.judge(record)
        counts[verdict.outcome] += 1
        counts["forwarded"] += verdict.forwarded
        yield {
            "place": place,
            "outcome": verdict.outcome,
            "id": verdict.id,
            "job_id": verdict.job_id,
            "lane": verdict.lane,
            "event": verdict.event,
            "code": verdict.code,
            "reason": verdict.reason,
            "forwarded": verdict.forwarded,
        }


def _file_records(files: list[Path]) -> Iterator[tuple[str, SentRecord]]:
    for file in files:
        yield from read_records(file)


def _topic_records(settings: Settings, topic: str) -> Iterator[tuple[str, SentRecord]]:
    consumer = reader(settings.kafka.config(), f"{settings.topic_prefix}cli")
    try:
        numbers = partitions_of(consumer, topic)
        starts = [TopicPartition(topic, n, watermarks(consumer, TopicPartition(topic, n))[0]) for n in numbers]
        for message in read_to_end(consumer, starts, _READ_TIMEOUT_S):
            yield f"{topic}/{message.partition()}@{message.offset()}", _sent(message)
    except KafkaException as error:
        raise TopicsError(f"topic {topic} cannot be read: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _sent(message: Message) -> SentRecord:
    key, value = message.key(), message.value()
    return SentRecord(
        value if value is None or isinstance(value, bytes) else value.encode(),
        key if key is None or isinstance(key, bytes) else key.encode(),
        headers_of(message) or [],
        message.partition(),
    )
