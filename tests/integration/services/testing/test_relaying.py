"""Joblog in memory, beside a real database: what an outbox has in the transaction of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from joblog.services import State, task
from joblog.services.embedded.stack import StackAddresses
from joblog.services.outbox import Outbox
from joblog.services.settings.model import Settings
from joblog.services.testing import InMemoryJoblog, RowNotRelayed
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

pytestmark = [pytest.mark.database]


@task("orders.confirm")
def confirm(order: int) -> int:
    return order


@contextmanager
def of_psycopg(dsn: str) -> Iterator[Any]:
    with psycopg.connect(dsn) as connection:
        yield connection
        connection.rollback()


@contextmanager
def of_sqlalchemy(dsn: str) -> Iterator[Any]:
    engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        yield session
        session.rollback()
    engine.dispose()


@pytest.mark.parametrize("kind", [of_psycopg, of_sqlalchemy])
def test_an_outbox_of_the_tests_own_transaction_is_relayed(stack: StackAddresses, schema: str, kind: Any) -> None:
    settings = Settings(lanes=4, outbox={"schema_name": schema})
    with kind(stack.dsn) as connection, InMemoryJoblog(confirm) as joblog:
        Outbox.create_table(connection, schema=schema)
        outbox = Outbox(connection, settings)
        first = outbox.enqueue("orders.confirm", 4711)
        with outbox.batch("two") as batch:
            batch.enqueue(confirm, 1)
            batch.enqueue(confirm, 2)
        assert joblog.jobs() == []
        relayed = joblog.relay(connection, schema=schema)
        assert relayed[0] == first
        assert set(batch.job_ids) < set(relayed)
        assert [job.result for job in joblog.run_all()] == [4711, 1, 2]
        assert joblog.relay(connection, schema=schema) == []
        joblog.assert_state(first, State.SUCCEEDED)
        outbox.enqueue(confirm, 3)
        with InMemoryJoblog(lanes=2) as other, pytest.raises(RowNotRelayed, match="written for 4 lanes"):
            other.relay(connection, schema=schema)
