"""Makes sure that the tables are there, for whoever starts: alembic is loaded only if something is missing."""

import psycopg
from joblog.projections import database
from joblog.projections.schema.schema import HEAD, current


def prepare(dsn: str, schema: str) -> None:
    """Create or migrate the tables if they are not those of this version; raises what `migrate.upgrade` raises."""
    try:
        found = current(dsn, schema)
    except psycopg.OperationalError as error:
        if not database.is_passing(error):
            raise
        raise database.away(dsn, error) from error
    if found == HEAD:
        return
    from joblog.projections.schema.migrate import upgrade  # noqa: PLC0415 - 0.5 s, which a start seldom needs

    upgrade(dsn, schema)
