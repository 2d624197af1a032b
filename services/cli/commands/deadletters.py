"""`joblog deadletters list`: records that could not be processed, read from Kafka."""

import heapq
from datetime import UTC, datetime
from typing import Any, Final

import typer
from confluent_kafka import Consumer, KafkaException, Message
from joblog.services.cli.context import LimitOption, Output, OutputOption
from joblog.services.cli.output import print_rows
from joblog.services.cli.values import settings_of
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.errors import TopicsError
from joblog.streams.kafka.clients import reader
from joblog.streams.kafka.last_records import last_records

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
        rows = [row(one) for one in newest(consumer, settings.names.deadletters, limit)]
    except KafkaException as exc:
        raise TopicsError(f"topic {settings.names.deadletters} cannot be read: {exc.args[0].str()}") from exc
    finally:
        consumer.close()
    print_rows(rows, ("at", "reason_code", "reason", "role", "topic", "partition", "offset", "value"), output)


def newest(consumer: Consumer, topic: str, limit: int) -> list[Message]:
    """The last records of a topic, newest first; reads at most `limit` of each partition."""
    records = last_records(consumer, topic, limit, _READ_TIMEOUT_S)
    return heapq.nlargest(limit, records, key=lambda record: (record.timestamp()[1], record.offset()))


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
