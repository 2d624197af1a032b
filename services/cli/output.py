"""Command output: tables for people, JSON for programs."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

import msgspec
from joblog.services.cli.context import Output
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

#: Columns that may be wrapped. All others stay whole, so that ids and names can be copied.
_FOLDED: Final = frozenset({"reason", "data", "finding", "fix", "message", "value", "queues", "tasks"})
#: A wrapped column narrower than this is printed on a line of its own instead.
_FOLDED_MIN: Final = 16
_GAP: Final = 2
_LISTED_MAX: Final = 10
_TITLES: Final = {"changed_at": "changed", "oldest_waiting_s": "oldest s", "lasted_s": "lasted s"}
_encoder: Final = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], output: Output) -> None:
    """Print a list: a table with these columns, or `none`; or each full row as one JSON object per line."""
    if output is Output.JSON:
        for row in rows:
            _write(row)
        return
    watched = sys.stdout.isatty()
    cells = [[shown(row.get(column), column, brief=watched) for column in columns] for row in rows]
    if not cells:
        print("none")
        return
    widths = [
        max(len(_title(column)), *(cell_len(_flat(line[n])) for line in cells), 0) for n, column in enumerate(columns)
    ]
    console = _console()
    beside = _beside(columns, widths, console.width) if watched else len(columns)
    if watched and beside == len(columns):
        console.print(_table(columns, cells))
        return
    console.print(_line([Text(_title(column)) for column in columns[:beside]], widths), style="bold", soft_wrap=True)
    for line in cells:
        console.print(_line(line[:beside], widths), soft_wrap=True)
        rest = [pair for pair in zip(columns[beside:], line[beside:], strict=True) if pair[1].plain not in {"", "-"}]
        for below in _packed(rest, console.width - _GAP):
            console.print(Padding(below, (0, 0, 0, _GAP)))


def print_document(document: Mapping[str, Any], output: Output) -> None:
    """Print one object: a field per line, or one JSON document."""
    if output is Output.JSON:
        _write(document)
        return
    names = [name.replace("_", " ") for name in document]
    texts = [shown(value, name) for name, value in document.items()]
    if not sys.stdout.isatty():
        for line in zip(names, texts, strict=True):
            _console().print(_line([Text(line[0]), line[1]], [max(map(len, names)), 0]), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in zip(names, texts, strict=True):
        table.add_row(name, text)
    _console().print(table)


def print_block(title: str, text: str) -> None:
    """Print a text of several lines under a title, with control characters replaced."""
    print(f"\n{title}\n{shown(text).plain.rstrip()}")


def shown(value: Any, name: str = "", *, brief: bool = False) -> Text:
    """Format a value for a cell. Values from the log may hold anything, so markup and control codes are escaped.

    `brief` is for lists on a terminal: times to the second, without the date if it is today's in UTC.
    """
    match value:
        case None:
            return Text("-", style="dim")
        case datetime():
            text = _time(value, brief=brief)
        case str() | date() | Enum() | PurePath():
            text = str(value)
        case float():
            text = f"{round(value, 1 if name.endswith('_ms') else 3):.10g}"
        case [*names] if names and all(isinstance(one, str) for one in names):
            more = len(names) - _LISTED_MAX
            text = ", ".join(names[:_LISTED_MAX]) + (f" and {more} more" if more > 0 else "")
        case _:
            text = _encoder.encode(value).decode()
    return Text("".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text))


def _time(value: datetime, *, brief: bool) -> str:
    if not brief:
        return value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    at = value.astimezone(UTC)
    return f"{at:%H:%M:%SZ}" if at.date() == datetime.now(UTC).date() else f"{at:%Y-%m-%d %H:%M:%SZ}"


def _beside(columns: Sequence[str], widths: Sequence[int], width: int) -> int:
    """How many of the first columns fit side by side; the others are printed below each row."""

    def is_wide(count: int) -> bool:
        chosen = zip(columns[:count], widths[:count], strict=True)
        least = (min(wanted, _FOLDED_MIN) if column in _FOLDED else wanted for column, wanted in chosen)
        return sum(least) + _GAP * (count - 1) > width

    if not is_wide(len(columns)):
        return len(columns)
    whole = next((n for n, column in enumerate(columns) if column in _FOLDED), len(columns) - 1)
    return next((count for count in range(whole, 1, -1) if not is_wide(count)), 1)


def _line(cells: Iterable[Text], widths: Iterable[int]) -> Text:
    """Cells side by side in one line."""
    texts = map(_flat, cells)
    padded = (text + " " * (width - cell_len(text)) for text, width in zip(texts, widths, strict=False))
    return Text((" " * _GAP).join(padded).rstrip())


def _flat(cell: Text) -> str:
    return cell.plain.replace("\n", " ")


def _table(columns: Sequence[str], cells: Iterable[Sequence[Text]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(_title(column), overflow="fold", no_wrap=column not in _FOLDED)
    for row in cells:
        table.add_row(*row[: len(columns)])
    return table


def _title(column: str) -> str:
    return _TITLES.get(column, column.replace("_", " "))


def _packed(rest: Iterable[tuple[str, Text]], width: int) -> Iterator[Text]:
    """Values with their names, as many in a line as fit; a longer one is wrapped in lines of its own."""
    line = Text()
    for column, text in rest:
        labelled = Text.assemble((f"{_title(column)} ", "dim"), text)
        if line and line.cell_len + _GAP + labelled.cell_len > width:
            yield line
            line = Text()
        line = Text.assemble(line, " " * _GAP, labelled) if line else labelled
    if line:
        yield line


def _write(value: Any) -> None:
    sys.stdout.write(_encoder.encode(value).decode() + "\n")


def _console() -> Console:
    return Console(highlight=False, markup=False)
