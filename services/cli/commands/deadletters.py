"""`joblog deadletters list|show`: records that could not be processed, read from Kafka.

A dead letter is named by its place in the topic `deadletters`, `PARTITION:OFFSET`. What it holds comes from anywhere:
it is shown with control characters replaced, and saved to a file byte by byte.
"""

import heapq
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.services.cli.context import LimitOption, Output, OutputOption, note
from joblog.services.cli.output import print_block, print_document, print_rows
from joblog.services.cli.values import settings_of
from joblog.services.settings.model import Settings
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.errors import BrokersAway, InvalidData, JoblogError, TopicsError
from joblog.streams.kafka.clients import reader
from joblog.streams.kafka.last_records import last_records, partitions_of, read_to_end, watermarks

app = typer.Typer(no_args_is_help=True)

#: How much of a value is shown.
_VALUE_CHARACTERS_MAX: Final = 2_000
_READ_TIMEOUT_S: Final = 30.0
_COLUMNS: Final = ("id", "at", "code", "role", "topic", "partition", "offset", "reason")
#: Joblog's headers on a dead letter, as the commands call them; all others are the record's own.
_HEADERS: Final = {
    "joblog-reason-code": "code",
    "joblog-reason": "reason",
    "joblog-role": "role",
    "joblog-topic": "topic",
    "joblog-partition": "partition",
    "joblog-offset": "offset",
}
_AWAY: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})
_NUMBERS: Final = frozenset({"partition", "offset"})


@app.callback()
def deadletters() -> None:
    """Show records that could not be processed."""


@app.command("list")
def list_deadletters(ctx: typer.Context, limit: LimitOption = 50, output: OutputOption = Output.TABLE) -> None:
    """List records that could not be processed, newest first: why, which role gave up, and where the record was.

    Example: joblog deadletters list --limit 10 --output json
    """
    settings = settings_of(ctx)
    with _reading(settings) as consumer:
        rows = [row(one) for one in newest_records(consumer, settings.names.deadletters, limit)]
    print_rows(rows, _COLUMNS, output)


@app.command()
def show(
    ctx: typer.Context,
    deadletter_id: Annotated[
        str, typer.Argument(metavar="ID", help="The id that `joblog deadletters list` shows, such as 0:17.")
    ],
    save: Annotated[Path | None, typer.Option(help="Write the value to this new file, byte by byte.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one record that could not be processed, with its value.

    Control characters are replaced; a value that is not UTF-8 is shown in base64. JSON output has the whole value.

    Example: joblog deadletters show 0:17 --save record.bin
    """
    partition, offset = _place(deadletter_id)
    settings = settings_of(ctx)
    with _reading(settings) as consumer:
        record = record_at(consumer, TopicPartition(settings.names.deadletters, partition, offset))
    value = record.value() or b""
    if save is not None:
        _write_new(save, value)
        note(f"{len(value)} bytes written to {save}")
    document = row(record, limit=len(value) if output is Output.JSON else _VALUE_CHARACTERS_MAX)
    text = document["value"] if output is Output.JSON else document.pop("value")
    if output is Output.JSON:
        print_document(document, output)
        return
    print_document({name: value for name, value in document.items() if value not in (None, [])}, output)
    if text is None:
        return
    print_block("value" if document["encoding"] == "utf-8" else "value, in base64", text)
    if len(text) >= _VALUE_CHARACTERS_MAX:
        note(f"only the first {_VALUE_CHARACTERS_MAX} characters are shown; --save FILE writes all of it")


def row(record: Message, limit: int = _VALUE_CHARACTERS_MAX) -> dict[str, Any]:
    """A dead letter as a document: why it is there, what it was, and the first `limit` characters of its value."""
    found = readable_headers(record) or []
    why: dict[str, Any] = {_HEADERS[name]: _text(value)[0] for name, value in found if name in _HEADERS}
    own = [{"name": name, "value": _text(value)[0]} for name, value in found if name not in _HEADERS]
    value, encoding = _text(record.value())
    raw = record.value()
    return {
        "id": f"{record.partition()}:{record.offset()}",
        "at": datetime.fromtimestamp(record.timestamp()[1] / 1000, UTC),
        **{name: int(text) if name in _NUMBERS and str(text).isdecimal() else text for name, text in why.items()},
        "key": _text(record.key())[0],
        "headers": own,
        "value_bytes": None if raw is None else len(raw),
        "encoding": encoding,
        "value": value if value is None else value[:limit],
    }


def _text(value: str | bytes | None) -> tuple[str | None, str | None]:
    """A key, header or value as text, and its encoding: UTF-8 if it is, else base64."""
    if value is None:
        return None, None
    try:
        return value if isinstance(value, str) else value.decode(), "utf-8"
    except UnicodeDecodeError:
        return b64encode(value if isinstance(value, bytes) else value.encode()).decode(), "base64"


def _place(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9}):(\d{1,18})", text)
    if found is None:
        raise InvalidData(f"{text!r:.60} is not the id of a dead letter: write PARTITION:OFFSET, such as 0:17")
    return int(found[1]), int(found[2])


def _write_new(path: Path, value: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(value)
    except FileExistsError as exc:
        raise InvalidData(f"--save: {path} exists already: give the name of a new file") from exc
    except OSError as exc:
        raise InvalidData(f"--save: {path} cannot be written: {exc.strerror}") from exc


@contextmanager
def _reading(settings: Settings) -> Iterator[Consumer]:
    """A consumer for a moment. Raises BrokersAway if no broker answers, TopicsError if the topic cannot be read."""
    consumer: Consumer = reader(settings.kafka.config(), f"{settings.topic_prefix}cli")
    try:
        yield consumer
    except KafkaException as exc:
        error = exc.args[0]
        if error.code() in _AWAY:
            raise BrokersAway(f"no broker answers at {settings.kafka.bootstrap_servers}: {error.str()}") from exc
        raise TopicsError(f"topic {settings.names.deadletters} cannot be read: {error.str()}") from exc
    finally:
        consumer.close()


def record_at(consumer: Consumer, place: TopicPartition) -> Message:
    """The record at one offset; JoblogError if there is none, as after the topic's retention."""
    numbers = partitions_of(consumer, place.topic)
    low, high = watermarks(consumer, place) if place.partition in numbers else (0, 0)
    if low <= place.offset < high:
        for record in read_to_end(consumer, [place], _READ_TIMEOUT_S):
            if record.offset() == place.offset:
                return record
            break  # the marker of a transaction is at this offset, and no record
    raise JoblogError(
        f"there is no dead letter {place.partition}:{place.offset}, or no longer: "
        "`joblog deadletters list` shows those that there are"
    )


def newest_records(consumer: Consumer, topic: str, limit: int) -> list[Message]:
    """The last records of a topic, newest first; reads at most `limit` of each partition."""
    records = last_records(consumer, topic, limit, _READ_TIMEOUT_S)
    return heapq.nlargest(limit, records, key=lambda record: (record.timestamp()[1], record.offset()))
