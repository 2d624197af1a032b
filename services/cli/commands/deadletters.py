"""`joblog deadletters list`: records that could not be processed, read from Kafka."""

import heapq
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.services.cli.context import LimitOption, Output, OutputOption
from joblog.services.cli.output import print_rows
from joblog.services.cli.values import settings_of
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.errors import TopicsError
from joblog.streams.kafka.clients import reader
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

app = typer.Typer(no_args_is_help=True)

#: How much of a value is shown.
_VALUE_CHARACTERS_MAX: Final = 2_000
_READ_TIMEOUT_S: Final = 30.0
_PREFIX: Final = "joblog-"


@app.callback()
def deadletters() -> None:
    """Show records that could not be processed."""


@app.command("list")
def list_deadletters(ctx: typer.Context, limit: LimitOption = 50, output: OutputOption = Output.TABLE) -> None:
    """List records that could not be processed, newest first: where they were, and what is wrong with them.

    Example: joblog deadletters list --limit 10 --output json
    """
    settings = settings_of(ctx)
    consumer: Consumer = reader(settings.kafka.config(), f"{settings.topic_prefix}cli")
    try:
        rows = [row(one) for one in last_records(consumer, settings.names.deadletters, limit)]
    except KafkaException as exc:
        raise TopicsError(f"topic {settings.names.deadletters} cannot be read: {exc.args[0].str()}") from exc
    finally:
        consumer.close()
    print_rows(rows, ("at", "reason_code", "reason", "role", "topic", "partition", "offset", "value"), output)


def last_records(consumer: Consumer, topic: str, limit: int) -> list[Message]:
    """The last records of a topic, newest first; reads at most `limit` of each partition."""
    found = consumer.list_topics(topic, timeout=10).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    starts = []
    for number in found.partitions:
        low, high = _watermarks(consumer, TopicPartition(topic, number))
        starts.append(TopicPartition(topic, number, max(low, high - limit)))
    records = _to_end(consumer, starts)
    return heapq.nlargest(limit, records, key=lambda record: (record.timestamp()[1], record.offset()))


@retry(retry=retry_if_exception_type(KafkaException), stop=stop_after_delay(10), wait=wait_fixed(0.2), reraise=True)
def _watermarks(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """The first and the next offset; the leader may have moved since it was asked for."""
    low, high = consumer.get_watermark_offsets(place, timeout=10)
    return low, high


def _to_end(consumer: Consumer, starts: list[TopicPartition]) -> Iterator[Message]:
    waiting, deadline = {one.partition for one in starts}, time.monotonic() + _READ_TIMEOUT_S
    consumer.assign(starts)
    while waiting:
        if time.monotonic() > deadline:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for record in consumer.consume(1_000, 0.1):
            error = record.error()
            if error is None:
                yield record
            elif error.code() == KafkaError._PARTITION_EOF:
                waiting.discard(record.partition())
            elif not error.retriable():
                raise KafkaException(error)


def row(record: Message) -> dict[str, Any]:
    """A dead letter as a row: its headers, and the beginning of its value."""
    found = dict(readable_headers(record) or ())
    headers = {
        name.removeprefix(_PREFIX).replace("-", "_"): _text(value)
        for name, value in found.items()
        if name.startswith(_PREFIX)
    }
    return {
        "at": datetime.fromtimestamp(record.timestamp()[1] / 1000, UTC),
        **headers,
        "key": _text(record.key()),
        "value": _text(record.value()),
    }


def _text(value: str | bytes | None) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else value.decode(errors="replace")
    return text[:_VALUE_CHARACTERS_MAX]
