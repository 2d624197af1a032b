"""What commands print: tables for people, JSON for programs."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from typing import Any, Final

import msgspec
from joblog.services.cli_context import Output
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Wide enough for any table when nobody looks at it: a pipe gets whole values.
_PIPE_WIDTH: Final = 1_000
_encoder: Final = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], output: Output) -> None:
    """A list: a table with these columns, or each row whole as one JSON object a line."""
    if output is Output.JSON:
        for row in rows:
            _write(row)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(shown(row.get(column)) for column in columns))
    _console().print(table)


def print_document(document: Mapping[str, Any], output: Output) -> None:
    """One thing: its fields below each other, or one JSON document."""
    if output is Output.JSON:
        _write(document)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in document.items():
        table.add_row(name.replace("_", " "), shown(value))
    _console().print(table)


def shown(value: Any) -> Text:
    """A value in a cell. What comes from the log may hold anything, so nothing in it is obeyed."""
    match value:
        case None:
            return Text("-", style="dim")
        case datetime():
            text = value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
        case str() | date() | Enum():
            text = str(value)
        case float():
            text = f"{value:g}"
        case _:
            text = _encoder.encode(value).decode()
    return Text("".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text))


def _write(value: Any) -> None:
    sys.stdout.write(_encoder.encode(value).decode() + "\n")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False)
