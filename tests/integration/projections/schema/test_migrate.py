"""Migrating on a real Postgres."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from joblog.projections.database import DatabaseAway
from joblog.projections.schema import migrate
from joblog.projections.schema.schema import VERSION_TABLE
from joblog.services.embedded.stack import StackAddresses
from joblog.services.roles import projector as wiring_projector
from joblog.services.settings.model import Settings
from joblog.streams.errors import SchemaError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters
from psycopg import sql
from psycopg.conninfo import make_conninfo

pytestmark = pytest.mark.database


def set_version(stack: StackAddresses, schema: str, version: str) -> None:
    with psycopg.connect(stack.dsn) as connection:
        table = sql.Identifier(schema, VERSION_TABLE)
        connection.execute(sql.SQL("UPDATE {} SET version_num = %s").format(table), [version])


def test_an_empty_database_is_brought_up_to_date(stack: StackAddresses, schema: str) -> None:
    assert migrate.current(stack.dsn, schema) is None
    assert migrate.upgrade(stack.dsn, schema) is None
    assert migrate.current(stack.dsn, schema) == migrate.head()
    migrate.check(stack.dsn, schema)


def test_migrating_again_changes_nothing(stack: StackAddresses, schema: str) -> None:
    migrate.upgrade(stack.dsn, schema)
    assert migrate.upgrade(stack.dsn, schema) == migrate.head()


@pytest.fixture
def guest(stack: StackAddresses, schema: str) -> Iterator[str]:
    """The address for a user who may use the schema, made by somebody else, and not make one."""
    name = f"{schema}_guest"
    user = sql.Identifier(name)
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'guest'").format(user))
        connection.execute(sql.SQL("GRANT ALL ON SCHEMA {} TO {}").format(sql.Identifier(schema), user))
        try:
            yield make_conninfo(stack.dsn, user=name, password="guest")  # noqa: S106 - a role of this test
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(user))
            connection.execute(sql.SQL("DROP ROLE {}").format(user))


def test_a_schema_that_is_there_needs_no_right_to_make_one(guest: str, schema: str) -> None:
    assert migrate.upgrade(guest, schema) is None
    assert migrate.upgrade(guest, schema) == migrate.head()


def test_tables_that_another_user_made_are_let_be(stack: StackAddresses, guest: str, schema: str) -> None:
    migrate.upgrade(stack.dsn, schema)
    with psycopg.connect(stack.dsn) as connection:
        connection.execute(
            sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(
                sql.Identifier(schema), sql.Identifier(f"{schema}_guest")
            )
        )
    assert migrate.upgrade(guest, schema) == migrate.head()


def test_processes_that_migrate_at_once_wait_for_each_other(stack: StackAddresses, schema: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        before = list(pool.map(lambda _: migrate.upgrade(stack.dsn, schema), range(6)))
    assert sorted(before, key=str) == [migrate.head()] * 5 + [None]


def test_a_missing_schema_names_the_command_that_helps(stack: StackAddresses, schema: str) -> None:
    with pytest.raises(SchemaError, match="joblog migrate"):
        migrate.check(stack.dsn, schema)


def test_an_older_schema_names_the_command_that_helps(stack: StackAddresses, schema: str) -> None:
    migrate.upgrade(stack.dsn, schema)
    set_version(stack, schema, "0000")
    with pytest.raises(SchemaError, match=r"is at 0000, this version needs .*: run `joblog migrate`"):
        migrate.check(stack.dsn, schema)


def test_a_newer_schema_is_left_alone(stack: StackAddresses, schema: str) -> None:
    migrate.upgrade(stack.dsn, schema)
    set_version(stack, schema, "9999")
    with pytest.raises(SchemaError, match="update joblog"):
        migrate.check(stack.dsn, schema)
    with pytest.raises(SchemaError, match="update joblog"):
        migrate.upgrade(stack.dsn, schema)
    assert migrate.current(stack.dsn, schema) == "9999"


def test_migrating_waits_only_so_long_for_another(
    stack: StackAddresses, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT_S", 0.1)
    with psycopg.connect(stack.dsn) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"joblog {schema}"])
        with pytest.raises(SchemaError, match="another process"):
            migrate.upgrade(stack.dsn, schema)


def test_migrating_a_postgres_that_is_away_says_where_it_should_be() -> None:
    with pytest.raises(DatabaseAway, match=r"at 127\.0\.0\.1:1, database nothing: .*[Rr]efused") as error:
        migrate.upgrade("postgresql://me:hunter2@127.0.0.1:1/nothing", "joblog")
    assert "hunter2" not in str(error.value)
    assert isinstance(error.value.__cause__, psycopg.OperationalError)


def test_a_projector_waits_for_a_postgres_that_is_away() -> None:
    """What its preparation raises is psycopg's, which it waits out."""
    settings = Settings.load(postgres={"dsn": "postgresql://me@127.0.0.1:1/nothing"})
    projector = wiring_projector.projector(settings)(Meters(), Health("projector"))
    with pytest.raises(psycopg.OperationalError):
        projector.role._projector._prepare()


def test_migrating_leaves_the_logging_of_the_process_alone(stack: StackAddresses, schema: str) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    migrate.upgrade(stack.dsn, schema)
    assert (list(root.handlers), root.level) == before


def test_nothing_is_made_outside_the_schema(stack: StackAddresses, schema: str) -> None:
    query = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        before = connection.execute(query).fetchone()
        migrate.upgrade(stack.dsn, schema)
        assert connection.execute(query).fetchone() == before
