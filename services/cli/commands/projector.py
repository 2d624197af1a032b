"""`joblog projector` and `joblog migrate`."""

import typer
from joblog.projections.schema.migrate import head, upgrade
from joblog.services.cli.commands.roles import HttpPort
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_document
from joblog.services.cli.postgres import hinted
from joblog.services.cli.values import given, settings_of
from joblog.services.roles import projector as wiring_projector
from joblog.services.roles.runner import run_role


def projector(ctx: typer.Context, http_port: HttpPort = None) -> None:
    """Run the projector: it keeps Postgres up to date.

    It creates or migrates the tables first, unless JOBLOG_POSTGRES__PREPARE is false.

    Example: joblog projector --http-port 9104
    """
    settings = settings_of(ctx, http=given(port=http_port))
    raise typer.Exit(run_role("projector", wiring_projector.projector(settings), settings))


def migrate(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Create or migrate the tables in Postgres.

    Example: JOBLOG_POSTGRES__DSN=postgresql://... joblog migrate
    """
    settings = settings_of(ctx)
    schema = settings.postgres.schema_name
    with hinted(settings):
        before = upgrade(settings.dsn(), schema)
    if output is Output.JSON:
        print_document({"schema": schema, "before": before, "now": head()}, output)
    else:
        note(f"schema {schema}: " + (f"is at {head()}" if before == head() else f"{before or 'nothing'} -> {head()}"))
