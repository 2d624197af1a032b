"""What tests share: one real Kafka and Postgres for the whole session, and a prefix and schema for each test.

Under pytest-xdist the controller starts the servers before its workers and hands them the addresses, so that
there is one pair whatever the number of workers. JOBLOG_TEST_BOOTSTRAP and JOBLOG_TEST_DSN name servers that
run already; those are used instead, each by itself.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from joblog.services.embedded import kafka as embedded_kafka
from joblog.services.embedded.stack import EmbeddedStack, StackAddresses
from joblog.streams.contract.topics import TOPICS, TopicNames
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig
from psycopg import sql

TESTS = Path(__file__).parent
USERS_OF_THE_STACK = (TESTS / "integration", TESTS / "acceptance")
ADDRESSES = pytest.StashKey[StackAddresses]()
DELETION_TIMEOUT_S = 30
POLL_S = 0.01
#: What takes long to look at, such as the whole log, is looked at a fifth of the time: others need the cores.
PAUSE_SHARE = 4
PAUSE_S_MAX = 0.25


class WaitUntil(Protocol):
    def __call__(self, condition: Callable[[], Any], timeout_s: float, what: str) -> Any: ...


@contextmanager
def running_stack() -> Iterator[StackAddresses]:
    """The servers named by the environment; those that it does not name are started in a temporary directory."""
    bootstrap, dsn = os.environ.get("JOBLOG_TEST_BOOTSTRAP", ""), os.environ.get("JOBLOG_TEST_DSN", "")
    if bootstrap and dsn:
        yield StackAddresses(bootstrap, dsn)
        return
    with (
        TemporaryDirectory(prefix="joblog-tests-") as directory,
        EmbeddedStack(Path(directory), kafka=not bootstrap, postgres=not dsn) as started,
    ):
        yield StackAddresses(bootstrap or started.addresses.bootstrap_servers, dsn or started.addresses.dsn)


def pytest_configure(config: pytest.Config) -> None:
    """In workers: brokers of single tests live for seconds, too short for the JVM's second compiler to pay off."""
    if hasattr(config, "workerinput"):
        embedded_kafka.JVM = (*embedded_kafka.JVM, "-XX:TieredStopAtLevel=1")


def wants_stack(config: pytest.Config) -> bool:
    """Whether the tests asked for lie in, or around, a directory of tests that use the servers."""
    asked = [Path(config.invocation_params.dir, argument.split("::")[0]).resolve() for argument in config.args]
    return any(
        path.is_relative_to(user) or user.is_relative_to(path) for path in asked for user in USERS_OF_THE_STACK
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the controller of pytest-xdist, for each worker."""
    config: pytest.Config = node.config
    if ADDRESSES not in config.stash and wants_stack(config):
        cleanup = ExitStack()
        config.add_cleanup(cleanup.close)
        config.stash[ADDRESSES] = cleanup.enter_context(running_stack())
    if ADDRESSES in config.stash:
        addresses = config.stash[ADDRESSES]
        node.workerinput["joblog_stack"] = (addresses.bootstrap_servers, addresses.dsn)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[StackAddresses]:
    """Where Kafka and Postgres are; a test that stops a server makes an EmbeddedStack of its own."""
    given = getattr(request.config, "workerinput", {}).get("joblog_stack")
    if given:
        yield StackAddresses(*given)
    else:
        with running_stack() as addresses:
            yield addresses


@pytest.fixture(scope="session")
def kafka(stack: StackAddresses) -> KafkaConfig:
    return KafkaConfig(stack.bootstrap_servers)


@pytest.fixture
def prefix() -> str:
    """The prefix of a test's own topics and groups."""
    return f"t-{secrets.token_hex(4)}."


@pytest.fixture
def lanes() -> int:
    return 2


@pytest.fixture
def names(prefix: str) -> TopicNames:
    return TopicNames(prefix)


@pytest.fixture
def topics(
    kafka: KafkaConfig, names: TopicNames, lanes: int, delete_topics: Callable[[list[str]], None]
) -> Iterator[TopicNames]:
    """All topics under the test's prefix; afterwards they are deleted, which no test waits for."""
    create_topics(kafka, names, lanes)
    yield names
    delete_topics([names.of(topic) for topic in TOPICS])


@pytest.fixture(scope="session")
def delete_topics(kafka: KafkaConfig) -> Iterator[Callable[[list[str]], None]]:
    """Deletes topics in the background; the end of the session waits for it."""
    client: AdminClient = clients.admin(kafka)
    deletions: list[Future[None]] = []

    def delete(doomed: list[str]) -> None:
        deletions.extend(client.delete_topics(doomed, operation_timeout=DELETION_TIMEOUT_S).values())

    yield delete
    for deletion in deletions:
        deletion.result(DELETION_TIMEOUT_S)


@pytest.fixture
def schema(stack: StackAddresses) -> Iterator[str]:
    """A name for the test's own Postgres schema, which the test creates; dropped afterwards."""
    name = f"t_{secrets.token_hex(4)}"
    yield name
    # A connection that a test forgot would make this wait for ever.
    with psycopg.connect(stack.dsn, options="-c lock_timeout=10s", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture
def wait_until() -> WaitUntil:
    return _wait_until


def _wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll until `condition` returns something true, and return that; AssertionError says `what` did not come."""
    deadline = time.monotonic() + timeout_s
    asked_at = time.monotonic()
    while not (result := condition()):
        now = time.monotonic()
        assert now < deadline, f"waited {timeout_s:g} s in vain for {what}"
        time.sleep(max(POLL_S, min(PAUSE_SHARE * (now - asked_at), PAUSE_S_MAX)))
        asked_at = time.monotonic()
    return result
