"""What an outbox writes into a connection, shown with stand-ins shaped like the connections of several libraries."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from inspect import signature
from types import SimpleNamespace
from typing import Any, Self

import pytest
from joblog.services.client.batch_calls import BatchCalls
from joblog.services.client.client import Client
from joblog.services.client.options import Call, CreationCancelled, JobDraft, JobOptions
from joblog.services.client.templates import CommandRecord
from joblog.services.outbox.outbox import ROWS_MAX, AsyncOutbox, Outbox
from joblog.services.settings.model import Settings
from joblog.streams.contract.ids import lane_of_job, lane_of_queue, new_job_id
from joblog.streams.errors import InvalidData, JoblogError, SchemaError, SettingsError
from msgspec import json

SETTINGS = Settings(lanes=4, client={"name": "shop"})
JOB, OUTER, INNER = (new_job_id(lane_of_queue("default", 4), 1, number) for number in (1, 2, 3))
Run = tuple[str, Mapping[str, Any] | None]


class Cursor:
    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.runs.append((statement, parameters))


class AsyncCursor(Cursor):
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None: ...

    async def execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:  # type: ignore[override]
        self.runs.append((statement, parameters))


class Psycopg:
    """As a connection of psycopg or psycopg2."""

    info = SimpleNamespace(server_version=180000)

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def cursor(self) -> Cursor:
        return Cursor(self.runs)

    def commit(self) -> None:
        raise AssertionError("an outbox commits nothing")

    rollback = commit


class AsyncPsycopg(Psycopg):
    def cursor(self) -> AsyncCursor:
        return AsyncCursor(self.runs)

    async def commit(self) -> None:  # type: ignore[override]
        raise AssertionError("an outbox commits nothing")


class Django(Psycopg):
    vendor = "postgresql"
    info = SimpleNamespace()


class Sqlalchemy:
    """As SQLAlchemy's Connection, which keeps account of transactions when it is asked for statements."""

    def __init__(self, name: str = "postgresql", driver: str = "psycopg2") -> None:
        self.dialect = SimpleNamespace(name=name, driver=driver)
        self.connection = Psycopg()
        self.runs = self.connection.runs

    def exec_driver_sql(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.runs.append((statement, parameters))


class AsyncSqlalchemy(Sqlalchemy):
    async def exec_driver_sql(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:  # type: ignore[override]
        self.runs.append((statement, parameters))


class Session:
    def __init__(self) -> None:
        self.below = Sqlalchemy()
        self.runs = self.below.runs

    def flush(self) -> None: ...

    def connection(self) -> Sqlalchemy:
        return self.below


class AsyncSession(Session):
    def __init__(self) -> None:
        self.below = AsyncSqlalchemy()
        self.runs = self.below.runs

    async def connection(self) -> Sqlalchemy:  # type: ignore[override]
        return self.below


class Sqlite:
    def cursor(self) -> None: ...
    def commit(self) -> None: ...


class Asyncpg:
    def cursor(self, query: str) -> None: ...
    async def execute(self, query: str) -> None: ...


def written(connection: Any) -> list[CommandRecord]:
    rows = []
    for statement, parameters in connection.runs:
        assert statement.startswith("-- Add commands")
        assert '"joblog_outbox".outbox' in statement
        assert parameters is not None
        assert parameters["lanes"] == 4
        assert parameters["lane"] == [lane_of_job(key) for key in parameters["key"]]
        rows += map(CommandRecord, parameters["key"], parameters["value"])
    return rows


@pytest.mark.parametrize("kind", [Psycopg, Django, Sqlalchemy, Session])
def test_a_call_adds_its_command_to_the_transaction(kind: type[Any]) -> None:
    connection = kind()
    job = Outbox(connection, SETTINGS).enqueue("orders.confirm", 4711)
    (row,) = written(connection)
    event = json.decode(row.value)
    assert (row.job_id, event["id"], event["source"]) == (job, job, "/joblog/clients/shop")
    assert (event["data"]["task"], event["data"]["args"]) == ("orders.confirm", [4711])


@pytest.mark.parametrize("kind", [AsyncPsycopg, AsyncSqlalchemy, AsyncSession])
def test_a_call_that_is_awaited_adds_its_command_to_the_transaction(kind: type[Any]) -> None:
    connection = kind()
    job = asyncio.run(AsyncOutbox(connection, SETTINGS).enqueue("orders.confirm", 4711))
    assert [row.job_id for row in written(connection)] == [job]


@pytest.mark.parametrize(
    ("connection", "why"),
    [
        (Sqlite(), "does not take a .*Sqlite: give it a connection of psycopg"),
        (Asyncpg(), "does not take a .*Asyncpg: give it a connection of psycopg"),
        (object(), "does not take a builtins.object: give it"),
        (Sqlalchemy("sqlite", "pysqlite"), "this is a connection to sqlite"),
        (Sqlalchemy("postgresql", "pg8000"), "not pg8000: write postgresql.psycopg://"),
        (AsyncPsycopg(), "write AsyncOutbox instead of Outbox"),
        (AsyncSqlalchemy(), "write AsyncOutbox instead of Outbox"),
        (AsyncSession(), "write AsyncOutbox instead of Outbox"),
    ],
)
def test_a_connection_that_cannot_be_used_is_refused_at_once(connection: Any, why: str) -> None:
    with pytest.raises(InvalidData, match=why):
        Outbox(connection, SETTINGS)


@pytest.mark.parametrize(
    ("connection", "why"),
    [
        (Psycopg(), "write Outbox instead of AsyncOutbox"),
        (Sqlalchemy(), "write Outbox instead of AsyncOutbox"),
        (Session(), "write Outbox instead of AsyncOutbox"),
        (object(), "give it an AsyncConnection of psycopg"),
        (AsyncSqlalchemy("postgresql", "asyncpg"), "not asyncpg"),
    ],
)
def test_an_async_outbox_refuses_it_at_the_first_call(connection: Any, why: str) -> None:
    with pytest.raises(InvalidData, match=why):
        asyncio.run(AsyncOutbox(connection, SETTINGS).enqueue("x"))


def every_call(outbox: BatchCalls) -> None:
    """Each public call, with a job id so that it can be repeated."""
    named = JobOptions(job_id=JOB)
    outbox.enqueue("x", 1, options=named, key="k")
    outbox.schedule("x", at=datetime(2030, 1, 1, tzinfo=UTC), options=named)
    outbox.continue_with(JOB, "x", options=named)
    outbox.create("x", Call(kwargs={"options": 1}), named)
    outbox.enqueue_many("x", [Call((1,), {}, None, JOB), Call((2,), {}, None, JOB)])
    outbox.delete(JOB, reason="why")
    outbox.requeue(JOB)
    outbox.reschedule(JOB, at=datetime(2030, 1, 1, tzinfo=UTC))
    outbox.set_parameter(JOB, "name", 1)
    outbox.set_priority(JOB, 5)
    outbox.continue_batch(JOB, "x", options=named)
    outbox.cancel_batch(JOB)


class Sent(Client):
    """A client that keeps what it would have sent."""

    def send(self, records: Any) -> None:
        self.kept = [*getattr(self, "kept", []), *records]


def contents(records: list[CommandRecord]) -> list[Any]:
    """The commands without what differs from call to call."""
    made = [json.decode(one.value) for one in records]
    return [{name: value for name, value in one.items() if name not in {"id", "time"}} for one in made]


def test_the_commands_are_those_of_a_client() -> None:
    connection = Psycopg()
    every_call(Outbox(connection, SETTINGS))
    with Sent.from_settings(SETTINGS) as client:
        every_call(client)
        sent = contents(client.kept)
    assert contents(written(connection)) == sent
    assert len(sent) == 13


def test_an_async_outbox_has_the_same_calls() -> None:
    public = {name for name in dir(BatchCalls) if not name.startswith("_")} - {"rules", "send_together"}
    assert public <= set(dir(AsyncOutbox))
    blocks = {name for name in public if not asyncio.iscoroutinefunction(getattr(AsyncOutbox, name))}
    assert blocks == {"batch", "attach"}
    for name in blocks:
        assert signature(getattr(AsyncOutbox, name)).parameters == signature(getattr(Outbox, name)).parameters


def test_a_batch_of_an_async_outbox_is_written_at_the_end_of_its_block() -> None:
    connection, heard = AsyncPsycopg(), []

    class Listening:
        def on_creating(self, draft: JobDraft) -> JobDraft:
            return draft

        def on_created(self, job_id: str, _draft: JobDraft) -> None:
            heard.append((job_id, len(written(connection))))

    async def run() -> None:
        outbox = AsyncOutbox(connection, SETTINGS, filters=[Listening()])
        async with outbox.batch("import", batch_id=OUTER) as batch:
            batch.enqueue("x", 1)
            with batch.batch("inner", batch_id=INNER) as inner:
                inner.enqueue_many("x", [((n,), {}) for n in range(2)])
            assert connection.runs == []
        async with outbox.attach(batch.id) as more:
            more.enqueue("x", 2)
        assert heard == [*((job, 7) for job in batch.job_ids), (more.job_ids[0], 10)]
        with suppress(KeyError):
            async with outbox.batch() as failed:
                failed.enqueue("x")
                raise KeyError
        with pytest.raises(JoblogError, match=r"outbox\.attach"), batch.attach() as lost:
            lost.enqueue("x")
        with pytest.raises(JoblogError, match=r"outbox\.attach"):
            batch.commit()
        with pytest.raises(TypeError), outbox.batch():  # type: ignore[attr-defined]
            pass

    asyncio.run(run())
    kinds = [json.decode(row.value)["type"].removeprefix("batch.") for row in written(connection)]
    inner = ["create", "job.create", "job.create", "mark"]
    assert kinds == ["create", "job.create", *inner, "mark", "attach", "job.create", "mark"]


def test_a_batch_is_written_at_the_end_of_its_block_and_not_at_all_if_that_raises() -> None:
    connection = Psycopg()
    outbox = Outbox(connection, SETTINGS)
    with outbox.batch("import") as batch:
        jobs = batch.enqueue_many("x", [((n,), {}) for n in range(3)])
        assert connection.runs == []
    rows = written(connection)
    kinds = [json.decode(row.value)["type"] for row in rows]
    assert (kinds[0], kinds[1:4], kinds[4:]) == ("batch.create", ["job.create"] * 3, ["batch.mark"])
    assert [row.job_id for row in rows[1:4]] == jobs
    with suppress(KeyError), outbox.batch() as failed:
        failed.enqueue("x")
        raise KeyError
    assert written(connection) == rows


def test_nothing_is_written_of_a_call_that_is_refused() -> None:
    connection = Psycopg()
    with pytest.raises(InvalidData):
        Outbox(connection, SETTINGS).enqueue_many("x", [((1,), {}), ((object(),), {})])
    assert connection.runs == []


def test_many_rows_are_written_in_several_statements() -> None:
    connection = Psycopg()
    jobs = Outbox(connection, SETTINGS).enqueue_many("x", [((n,), {}) for n in range(2 * ROWS_MAX + 1)])
    assert len(connection.runs) == 3
    assert [row.job_id for row in written(connection)] == jobs


class Guard:
    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.told: list[tuple[str, int]] = []

    def on_creating(self, draft: JobDraft) -> JobDraft | None:
        return None if "private" in draft.args else draft

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        assert "private" not in draft.args
        self.told.append((job_id, len(written(self.connection))))


def test_filters_see_each_job_and_hear_of_it_when_it_is_written() -> None:
    connection = Psycopg()
    guard = Guard(connection)
    outbox = Outbox(connection, SETTINGS, filters=[guard])
    with pytest.raises(CreationCancelled):
        outbox.enqueue("x", "private")
    jobs = outbox.enqueue_many("x", [(("private",), {}), (("a",), {}), (("b",), {})])
    assert guard.told == [(jobs[0], 2), (jobs[1], 2)]


def test_filters_of_an_async_outbox_hear_of_jobs_when_they_are_written() -> None:
    connection = AsyncPsycopg()
    guard = Guard(connection)
    job = asyncio.run(AsyncOutbox(connection, SETTINGS, filters=[guard]).enqueue("x"))
    assert guard.told == [(job, 1)]


def test_the_schema_can_be_chosen_and_its_name_is_checked() -> None:
    connection = Psycopg()
    Outbox.create_table(connection, schema="shop")
    ((statement, parameters),) = connection.runs
    assert 'CREATE TABLE "shop".outbox' in statement
    assert "{schema}" not in statement
    assert parameters is None
    with pytest.raises(SchemaError, match="cannot name a schema"):
        Outbox.create_table(connection, schema='x"; DROP TABLE users; --')


def test_settings_that_no_client_could_have_are_refused() -> None:
    wrong = SETTINGS.model_copy(update={"client": SETTINGS.client.model_copy(update={"name": "no name"})})
    with pytest.raises(SettingsError, match="outbox: its name"):
        Outbox(Psycopg(), wrong)
