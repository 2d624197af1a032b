"""The rows of an outbox in a real database: there if and only if the caller's transaction is committed."""

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from joblog.projections.outbox.operating import create, operating
from joblog.projections.outbox.rows import OutboxRows
from joblog.services.client.options import Call, JobDraft, JobOptions
from joblog.services.outbox.outbox import AsyncOutbox, Outbox
from joblog.streams.contract.ids import hashed_job_id, lane_of_job
from joblog.streams.errors import InvalidData, SchemaError
from psycopg import sql
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from tests.support.outbox_world import OutboxWorld

pytestmark = [pytest.mark.database]


def committed(table: OutboxWorld) -> list[str]:
    """The job ids of the rows that others see, in the order in which they would be relayed."""
    with OutboxRows(table.dsn, table.schema) as rows:
        return [row.key for row in rows.waiting(10_000)]


def test_rows_live_and_die_with_the_callers_transaction_and_its_savepoints(table: OutboxWorld) -> None:
    with table.connect() as connection:
        outbox = table.outbox(connection)
        outbox.enqueue("x", "rolled back")
        connection.rollback()
        kept = [outbox.enqueue("x", "before")]
        with connection.transaction(force_rollback=True):
            outbox.enqueue_many("x", [((n,), {}) for n in range(3)])
        kept.append(outbox.schedule("x", delay=60))
        kept.append(outbox.continue_with(kept[0], "x"))
        assert committed(table) == []
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert committed(table) == kept


def test_a_refused_call_leaves_the_transaction_as_it_was(table: OutboxWorld) -> None:
    with table.connect() as connection:
        job = table.outbox(connection).enqueue("x")
        with pytest.raises(InvalidData):
            table.outbox(connection).enqueue_many("x", [((1,), {}), ((object(),), {})])
    assert committed(table) == [job]


def test_many_rows_keep_their_order(table: OutboxWorld) -> None:
    with table.connect() as connection:
        jobs = table.outbox(connection).enqueue_many("x", [Call((n,)) for n in range(2_345)])
    assert committed(table) == jobs


def test_rows_are_read_until_they_have_so_many_bytes(table: OutboxWorld) -> None:
    with table.connect(autocommit=True) as connection, OutboxRows(table.dsn, table.schema) as rows:
        jobs = table.outbox(connection).enqueue_many("x", [(("y" * 1_000,), {})] * 5)
        assert [row.key for row in rows.waiting(10, bytes_max=1)] == jobs[:1]
        assert [row.key for row in rows.waiting(10, bytes_max=3_000)] == jobs[:3]
        assert [row.key for row in rows.waiting(4)] == jobs[:4]


def test_a_row_of_a_transaction_that_commits_late_is_neither_left_out_nor_waited_for(table: OutboxWorld) -> None:
    with table.connect() as late, table.connect() as early, OutboxRows(table.dsn, table.schema) as rows:
        lower = table.outbox(late).enqueue("x")
        higher = table.outbox(early).enqueue("x")
        early.commit()
        (found,) = rows.waiting(10)
        assert found.key == higher
        rows.delete([found.id])
        late.commit()
        (left,) = rows.waiting(10)
        assert left.key == lower
        assert left.id < found.id


def test_a_commit_wakes_the_relay_and_a_rollback_does_not(table: OutboxWorld) -> None:
    with table.connect() as connection, OutboxRows(table.dsn, table.schema) as rows:
        table.outbox(connection).enqueue("x")
        connection.rollback()
        assert not rows.wait(0.05)
        table.outbox(connection).enqueue("x")
        assert not rows.wait(0.05)
        connection.commit()
        assert rows.wait(5)


def test_the_table_is_made_once_by_whoever_comes_first(table: OutboxWorld) -> None:
    schema = f"{table.schema}_2"
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: create(table.dsn, schema), range(4)))
        assert len(set(found)) == 1
        with table.connect() as connection:
            Outbox.create_table(connection, schema=schema)
            connection.rollback()
        assert create(table.dsn, schema) == found[0]
    finally:
        with table.connect() as connection:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


@contextmanager
def user_with(table: OutboxWorld, *grants: str) -> Iterator[str]:
    """The address for a user with these rights on the schema of the outbox."""
    name, password = f"{table.schema}_{secrets.token_hex(2)}", secrets.token_hex(8)
    with table.connect(autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        owner.execute(f"GRANT USAGE ON SCHEMA {table.schema} TO {name}")
        for grant in grants:
            owner.execute(f"GRANT {grant} TO {name}".replace("SCHEMA", table.schema))
        try:
            yield psycopg.conninfo.make_conninfo(table.dsn, user=name, password=password)
        finally:
            owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_writer_needs_insert_and_the_relay_what_the_help_says(table: OutboxWorld) -> None:
    with user_with(table, "INSERT ON SCHEMA.outbox") as dsn, psycopg.connect(dsn) as connection:
        job = table.outbox(connection).enqueue("x")
        connection.commit()
        Outbox.create_table(connection, schema=table.schema)  # it is there: nothing is needed
        connection.commit()
        with pytest.raises(SchemaError, match="has no rights"), operating(dsn, table.schema):
            pass
    grants = ("SELECT, UPDATE (error), DELETE ON SCHEMA.outbox", "SELECT ON SCHEMA.outbox_identity")
    with user_with(table, *grants) as dsn, operating(dsn, table.schema) as rows:
        (row,) = rows.waiting(10)
        assert row.key == job
        assert rows.lock()
        rows.park(row.id, "why")
        assert rows.status()[::2] == (0, 1)
        assert rows.discard(None) == 1
        rows.delete([row.id])


class Noting:
    """A client filter that puts its jobs elsewhere, and notes which were created when."""

    def __init__(self) -> None:
        self.created: list[str] = []

    def on_creating(self, draft: JobDraft) -> JobDraft:
        return JobDraft(draft.task, draft.args, draft.kwargs, JobOptions(queue="elsewhere"))

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        assert draft.options.queue == "elsewhere"
        self.created.append(job_id)


def test_an_async_connection_takes_an_async_outbox(table: OutboxWorld) -> None:
    async def write() -> list[str]:
        noting = Noting()
        async with await psycopg.AsyncConnection.connect(table.dsn) as connection:
            await AsyncOutbox.create_table(connection, schema=table.schema)
            outbox = AsyncOutbox(connection, table.settings)
            jobs = [await outbox.enqueue("x", 1), *await outbox.enqueue_many("x", [((2,), {})])]
            jobs.append(await AsyncOutbox(connection, table.settings, filters=[noting]).enqueue("x"))
            assert noting.created == jobs[2:]
            await outbox.delete(jobs[0])
            async with outbox.batch("import") as batch:
                batch.enqueue("x", 3)
            with pytest.raises(InvalidData, match="write AsyncOutbox"):
                Outbox(connection, table.settings)
        mark = hashed_job_id(lane_of_job(batch.job_ids[0]), "batch.mark", batch.id)
        return [*jobs, jobs[0], batch.id, *batch.job_ids, mark]

    written = asyncio.run(write())
    assert committed(table) == written


def test_connections_and_sessions_of_sqlalchemy_commit_what_they_were_given(table: OutboxWorld) -> None:
    engine = create_engine(sqlalchemy_url(table.dsn))
    with engine.connect() as connection:  # the outbox's statement is its first one
        jobs = [table.outbox(connection).enqueue("x")]
        connection.commit()
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        jobs.append(table.outbox(session).enqueue("x"))
        with session.begin_nested() as savepoint:
            table.outbox(session.connection()).enqueue("x")
            savepoint.rollback()
        session.commit()
        table.outbox(session).enqueue("x")
        session.rollback()
    engine.dispose()
    assert committed(table) == jobs


def sqlalchemy_url(dsn: str) -> Any:
    return dsn.replace("postgresql://", "postgresql+psycopg://")
