"""`joblog migrate`: by itself, as alembic takes half a second to load."""

import typer
from joblog.projections.schema.migrate import head, upgrade
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_document
from joblog.services.cli.postgres import hinted
from joblog.services.cli.values import settings_of


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
