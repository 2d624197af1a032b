"""The fixtures that other tests rely on."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from joblog.services.embedded.stack import StackAddresses
from psycopg import sql


@pytest.fixture
def gone(stack: StackAddresses) -> Iterator[list[str]]:
    """Schemas that are to be gone when the fixtures after this one are torn down."""
    names: list[str] = []
    yield names
    assert names
    with psycopg.connect(stack.dsn) as connection:
        found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)", [names])
        assert found.fetchall() == []


@pytest.mark.database
def test_a_schema_is_the_tests_own_and_dropped_afterwards(
    gone: list[str], stack: StackAddresses, schema: str
) -> None:
    with psycopg.connect(stack.dsn) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE TABLE {} (number integer)").format(sql.Identifier(schema, "things")))
    gone.append(schema)


def test_waiting_gives_what_came_and_names_what_did_not(wait_until: Callable[..., Any]) -> None:
    answers = iter([0, "", "there"])
    assert wait_until(lambda: next(answers), 5, "an answer") == "there"
    with pytest.raises(AssertionError, match=r"waited 0\.05 s in vain for the moon"):
        wait_until(lambda: False, 0.05, "the moon")
