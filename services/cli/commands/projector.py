"""`joblog projector` and `joblog expire`."""

from typing import Annotated, Final

import typer
from joblog.projections.expiry.now import expirable, expire_now
from joblog.services.cli.commands.roles import HttpPort
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import hinted
from joblog.services.cli.values import given, settings_of
from joblog.services.roles import projector as wiring_projector
from joblog.services.roles.runner import run_role
from msgspec import structs

COLUMNS: Final = ("state", "queue", "task", "rows", "oldest", "newest")


def projector(ctx: typer.Context, http_port: HttpPort = None) -> None:
    """Run the projector: it keeps Postgres up to date.

    It creates or migrates the tables first, unless JOBLOG_POSTGRES__PREPARE is false.

    Example: joblog projector --http-port 9104
    """
    settings = settings_of(ctx, http=given(port=http_port))
    raise typer.Exit(run_role("projector", wiring_projector.projector(settings), settings))


def expire(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which rows have expired, and change nothing.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete the rows of jobs from Postgres that have expired; the log keeps their events.

    The projector does this by itself, every JOBLOG_EXPIRY__CHECK (5m). For how long rows are kept is in
    JOBLOG_EXPIRY__SUCCEEDED (1d), __DELETED (1d), __FAILED (30d), __QUEUES and __TASKS; of batches in __BATCHES (7d).

    Example: joblog expire --dry-run
    """
    settings = settings_of(ctx)
    given = (settings.dsn(), settings.postgres.schema_name, range(settings.lanes), settings.expiry.rules)
    if dry_run:
        with hinted(settings):
            rows = expirable(*given)
        print_rows((structs.asdict(one) for one in rows), COLUMNS, output)
        return
    with hinted(settings):
        counts = expire_now(*given)
    if output is Output.JSON:
        print_document(counts, output)
    else:
        note("; ".join(f"{state}: {n} rows expired" for state, n in counts.items()))
