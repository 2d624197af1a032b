"""`joblog outbox`: the relay itself, and the commands on an outbox and its parked rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from joblog.projections.outbox.operating import create as create_in
from joblog.projections.outbox.operating import operating
from joblog.projections.outbox.rows import COUNTED_MAX, OutboxRows, ParkedRow
from joblog.projections.outbox.table import create_statement
from joblog.services.cli.commands.roles import HttpPort
from joblog.services.cli.context import LimitOption, Output, OutputOption, note
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import hinted
from joblog.services.cli.values import given, settings_of
from joblog.services.roles.outbox import outbox as wired
from joblog.services.roles.runner import run_role
from joblog.streams.errors import InvalidData, JoblogError

app = typer.Typer(invoke_without_command=True)

RowIds = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", help="Ids of rows, as `joblog outbox list` shows them.")
]
All = Annotated[bool, typer.Option("--all", help="All parked rows.")]
_COLUMNS: Final = ("id", "at", "job_id", "lane", "bytes", "reason")


@app.callback()
def outbox(ctx: typer.Context, http_port: HttpPort = None) -> None:
    """Run the relay of an outbox, which puts its rows into the log; or, with a command, look after the outbox.

    An outbox is a table in an application's database (JOBLOG_OUTBOX__DSN, JOBLOG_OUTBOX__SCHEMA_NAME). Start two
    relays of it on two machines: one works, the other stands by. The connection must not pass a pooler.

    Example: joblog outbox --http-port 9107
    """
    if ctx.invoked_subcommand is not None:
        if http_port is not None:
            raise InvalidData(f"--http-port has no effect on `joblog outbox {ctx.invoked_subcommand}`: leave it out")
        return
    settings = settings_of(ctx, http=given(port=http_port))
    raise typer.Exit(run_role("outbox", wired(settings), settings))


@app.command()
def create(
    ctx: typer.Context,
    print_sql: Annotated[
        bool, typer.Option("--print-sql", help="Print the statement, for your own migrations, and run nothing.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make the table of the outbox, unless it is there.

    Writers need USAGE on the schema and INSERT on its table outbox. The relay needs USAGE, and SELECT, UPDATE (error)
    and DELETE on outbox, and SELECT on outbox_identity; retry and discard need INSERT, too.

    Example: joblog outbox create
    """
    settings = settings_of(ctx)
    schema = settings.outbox.schema_name
    if print_sql:
        print(f"{create_statement(schema)};")
        return
    with hinted(settings):
        identity = create_in(settings.outbox_dsn(), schema)
    if output is Output.JSON:
        print_document({"schema": schema, "outbox": identity}, output)
    else:
        note(f"the outbox in schema {schema} is there: {identity}")


@app.command()
def status(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show how many rows wait to be relayed, how old the first one is, and how many are parked.

    More than 100,000 rows are not counted.

    Example: joblog outbox status --output json
    """
    with _rows(ctx) as rows:
        found, identity = rows.status(), rows.identity
    age = None if found.oldest is None else round((datetime.now(UTC) - found.oldest).total_seconds(), 3)
    is_all = found.waiting <= COUNTED_MAX
    shown: Any = found.waiting if is_all or output is Output.JSON else f"more than {COUNTED_MAX}"
    document = {
        "outbox": identity,
        "waiting": shown,
        "oldest": found.oldest,
        "oldest_waiting_s": age,
        "parked": found.parked,
    }
    print_document(document, output)


@app.command("list")
def list_parked(ctx: typer.Context, limit: LimitOption = 50, output: OutputOption = Output.TABLE) -> None:
    """List the parked rows, oldest first: those that Kafka cannot take, and why.

    Example: joblog outbox list --output json
    """
    with _rows(ctx) as rows:
        found = rows.parked(limit)
    print_rows((_row(one, whole=output is Output.JSON) for one in found), _COLUMNS, output)


@app.command()
def retry(ctx: typer.Context, row_ids: RowIds = None, *, every: All = False) -> None:
    """Let parked rows be relayed again, behind those that wait now; they get new ids.

    Example: joblog outbox retry --all
    """
    ids = _chosen(row_ids, every=every)
    with _rows(ctx) as rows:
        _tell(rows.retry(ids), ids, "wait again")


@app.command()
def discard(ctx: typer.Context, row_ids: RowIds = None, *, every: All = False) -> None:
    """Delete parked rows: what they ask for will never be done.

    Example: joblog outbox discard 4711
    """
    ids = _chosen(row_ids, every=every)
    with _rows(ctx) as rows:
        _tell(rows.discard(ids), ids, "are deleted")


@contextmanager
def _rows(ctx: typer.Context) -> Iterator[OutboxRows]:
    settings = settings_of(ctx)
    with hinted(settings), operating(settings.outbox_dsn(), settings.outbox.schema_name) as rows:
        yield rows


def _chosen(row_ids: list[int] | None, *, every: bool) -> list[int] | None:
    """The ids, or None for all."""
    if bool(row_ids) == every:
        raise InvalidData("name rows by their ids, or give --all")
    return sorted(set(row_ids)) if row_ids else None


def _tell(count: int, ids: list[int] | None, what: str) -> None:
    note(f"{count} rows {what}")
    if ids is not None and count < len(ids):
        raise JoblogError(f"{len(ids) - count} of the rows are not parked: `joblog outbox list` shows those that are")


def _row(parked: ParkedRow, *, whole: bool) -> dict[str, Any]:
    row = {
        "id": parked.id,
        "at": parked.created_at,
        "job_id": parked.job_id,
        "lane": parked.lane,
        "bytes": parked.value_bytes,
        "reason": parked.error,
    }
    return {**row, "value": parked.value.decode(errors="replace")} if whole else row
