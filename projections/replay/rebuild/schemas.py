"""The schemas of a rebuild: the live one, the new one that is being filled, and the old one that was replaced."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from joblog.projections import database
from joblog.projections.database import away
from joblog.projections.schema.prepare import prepare
from joblog.projections.schema.schema import check_in, checked_name, current_in
from joblog.projections.statements import load
from joblog.streams.errors import ProjectionError, SchemaError
from psycopg import sql
from psycopg.rows import dict_row
from tenacity import Retrying, retry_if_not_result, stop_after_delay, wait_fixed

SQL: Final = load("replay/rebuild/rebuild.sql")
Connection = psycopg.Connection[Any]
#: How long to try to be the only one.
LOCK_S: Final = 1.0


class Refused(ProjectionError):
    """A rebuild, a way back or a removal is not possible as things are; the message names what helps."""


@dataclass(frozen=True, slots=True)
class Schemas:
    """The names; `live` is the one of the settings."""

    live: str

    def __post_init__(self) -> None:
        checked_name(self.live)
        checked_name(self.new)

    @property
    def new(self) -> str:
        return f"{self.live}_new"

    @property
    def old(self) -> str:
        return f"{self.live}_old"

    @property
    def between(self) -> str:
        """A name that exists only within the transaction that exchanges two schemas."""
        return f"{self.live}_tmp"


@dataclass(frozen=True, slots=True)
class Found:
    """A schema that is there; `jobs` is what the planner thinks, None before it was asked to count."""

    schema: str
    owner: str
    is_owner: bool
    bytes: int
    jobs: int | None
    remark: str | None


@contextmanager
def connected(dsn: str, schema: str) -> Iterator[Connection]:
    """A connection for long work; an error of Postgres that passes by itself is DatabaseAway."""
    try:
        with database.connect(dsn, schema, "joblog-rebuild") as connection:
            connection.execute("SELECT set_config('statement_timeout', '0', false)")
            yield connection
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(f"this user may not do that ({database.why(error)}): use the owner of the schema") from error
    except psycopg.Error as error:
        if database.is_passing(error):
            raise away(dsn, error) from error
        raise


def _try_lock(connection: Connection, schema: str) -> bool:
    row = connection.execute(SQL["lock"], {"name": f"joblog rebuild {schema}"}).fetchone()
    return bool(row and row[0])


@contextmanager
def alone(dsn: str, schemas: Schemas) -> Iterator[Connection]:
    """A connection that no other rebuild of this schema has; Refused if one is at work. Ends with the connection."""
    with connected(dsn, schemas.live) as connection:
        # The server may take a moment to notice that the process before, which had the lock, is gone.
        is_alone = Retrying(
            retry=retry_if_not_result(bool),
            stop=stop_after_delay(LOCK_S),
            wait=wait_fixed(0.1),
            retry_error_callback=lambda _state: False,
        )
        if not is_alone(_try_lock, connection, schemas.live):
            raise Refused(f"another process is rebuilding {schemas.live!r}: wait for it, or stop it")
        yield connection


def found(connection: Connection, schemas: Schemas) -> Mapping[str, Found]:
    """Those of the three schemas that are there."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(SQL["schemas"], {"schemas": [schemas.live, schemas.new, schemas.old]}).fetchall()
    return {row["schema"]: Found(**{**row, "jobs": row["jobs"] if row["jobs"] >= 0 else None}) for row in rows}


def check_replaceable(connection: Connection, schemas: Schemas) -> None:
    """Raise Refused, or SchemaError, for whatever would make the swap fail or take something along unseen."""
    check_in(connection, schemas.live)
    check_mine(connection, schemas, schemas.live)
    there = found(connection, schemas)
    if schemas.old in there:
        raise Refused(
            f"{schemas.old!r} is still kept from an earlier rebuild: remove it with "
            "`joblog replay rebuild --drop-old`, or go back to it with `--rollback`"
        )
    if views := [view for (view,) in connection.execute(SQL["dependents"], {"schema": schemas.live})]:
        raise Refused(
            f"these views read tables of {schemas.live!r}, and would go on reading the former ones: "
            f"{', '.join(views)}; drop them, and create them again after the rebuild"
        )


def check_mine(connection: Connection, schemas: Schemas, name: str) -> None:
    """Refused unless this user owns the schema and all of its tables, and may rename it."""
    with connection.cursor(row_factory=dict_row) as cursor:
        [user] = cursor.execute(SQL["who"]).fetchall()
        foreign = cursor.execute(SQL["foreign_owners"], {"schema": name}).fetchall()
    owner = found(connection, schemas)[name].owner
    if owner != user["name"]:
        raise Refused(f"{name!r} belongs to {owner}, and this user is {user['name']}: use the address for {owner}")
    if foreign:
        raise Refused(f"{name}.{foreign[0]['relname']} belongs to {foreign[0]['owner']}, and not to {owner}")
    if not user["may_create"]:
        raise Refused(f"the user {owner} may not make schemas: GRANT CREATE ON DATABASE ... TO {owner}")


def prepare_new(connection: Connection, dsn: str, schemas: Schemas, *, anew: bool) -> bool:
    """The new schema at this version; whether it was there already. `anew` drops what an earlier call has built."""
    if anew:
        drop(connection, schemas.new)
    was_there = current_in(connection, schemas.new) is not None
    prepare(dsn, schemas.new)
    if not was_there:
        remark(connection, schemas.new, f"being built from the log since {_now()}")
    if added := additions(connection, schemas.live, schemas.new):
        raise Refused(
            f"{schemas.live!r} has what no migration of this version makes: {', '.join(added)}; "
            "move it to another schema, or drop it"
        )
    return was_there


def additions(connection: Connection, schema: str, other: str) -> list[str]:
    """What the one schema has and the other has not."""
    return [name for (name,) in connection.execute(SQL["additions"], {"schema": schema, "other": other})]


def remark(connection: Connection, schema: str, text: str) -> None:
    """Say in the database what a schema is."""
    statement = sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(schema), sql.Literal(f"joblog: {text}"))
    connection.execute(statement)


def drop(connection: Connection, schema: str) -> None:
    """Remove a schema with all that is in it."""
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def positions(connection: Connection, schema: str) -> dict[int, tuple[int, float | None]]:
    """The next offset of each lane, and how long ago the tables held all of it (None: never), in seconds."""
    query = sql.SQL(SQL["positions"]).format(sql.Identifier(schema))
    return {lane: (offset, late_s) for lane, offset, late_s in connection.execute(query)}


def table_names(connection: Connection, schema: str) -> list[str]:
    names = [name for (name,) in connection.execute(SQL["tables"], {"schema": schema})]
    if not names:
        raise SchemaError(f"the database has no tables in schema {schema!r}: run `joblog migrate`")
    return names


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
