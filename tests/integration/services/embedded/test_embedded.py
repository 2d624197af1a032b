import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from joblog.services.embedded.stack import EmbeddedStack, StackAddresses
from joblog.streams.errors import StackError

pytestmark = [pytest.mark.broker, pytest.mark.database]

TOPIC = "facts"
DEADLINE_S = 60

OWNER = """
import sys, time
from pathlib import Path
from joblog.services.embedded.stack import EmbeddedStack
stack = EmbeddedStack(Path(sys.argv[1]))
addresses = stack.start()
print(addresses.bootstrap_servers, addresses.dsn, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[EmbeddedStack]:
    with TemporaryDirectory(prefix="joblog ü,") as directory, EmbeddedStack(Path(directory)) as running:
        make_topic(running.addresses)
        yield running


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="joblog-") as name:
        yield Path(name)


def make_topic(addresses: StackAddresses) -> None:
    admin = AdminClient({"bootstrap.servers": addresses.bootstrap_servers})
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(DEADLINE_S)


def write(addresses: StackAddresses, value: str) -> None:
    producer = Producer({"bootstrap.servers": addresses.bootstrap_servers, "acks": "all"})
    producer.produce(TOPIC, value)
    assert producer.flush(DEADLINE_S) == 0


def read(addresses: StackAddresses, count: int) -> list[str]:
    settings = {"group.id": "reader", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": addresses.bootstrap_servers, **settings})
    consumer.subscribe([TOPIC])
    values: list[str] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(values) < count and time.monotonic() < deadline:
        values += [(record.value() or b"").decode() for record in consumer.consume(1, 0.2) if not record.error()]
    consumer.close()
    return values


def table_rows(addresses: StackAddresses) -> list[tuple[int]]:
    with psycopg.connect(addresses.dsn) as connection:
        return connection.execute("SELECT number FROM facts ORDER BY number").fetchall()


def add_row(addresses: StackAddresses, number: int) -> None:
    with psycopg.connect(addresses.dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS facts (number integer)")
        connection.execute("INSERT INTO facts VALUES (%s)", [number])


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_S)
    assert alive == []


def test_a_stop_leaves_no_process_a_restart_keeps_addresses_and_data_and_taken_ports_move(directory: Path) -> None:
    others = set(psutil.Process().children(recursive=True))
    with EmbeddedStack(directory) as first:
        before = first.addresses
        children = [child for child in psutil.Process().children(recursive=True) if child not in others]
        assert {"java", "postgres"} <= {child.name() for child in children}
        make_topic(before)
        write(before, "kept")
        add_row(before, 1)
        first.stop()  # the end of the block stops it once more
    wait_until_gone(children)

    with EmbeddedStack(directory) as second:
        assert second.addresses == before
        assert read(before, 1) == ["kept"]
        assert table_rows(before) == [(1,)]

    said: list[str] = []
    ports = json.loads((directory / "ports.json").read_text())
    with ExitStack() as taken:
        for name in ("Kafka", "Kafka's controller"):
            taken.enter_context(socket.create_server(("127.0.0.1", ports[name])))
        third = taken.enter_context(EmbeddedStack(directory, postgres=False, progress=said.append))
        assert third.addresses.bootstrap_servers != before.bootstrap_servers
        assert read(third.addresses, 1) == ["kept"]
    assert len([line for line in said if "is now in use by another program" in line]) == 2


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(directory: Path) -> None:
    (directory / "file").touch()
    with pytest.raises(StackError, match=f"the stack in {directory}/file/x could not be started: "):
        EmbeddedStack(directory / "file" / "x").start()


def test_a_killed_broker_comes_back_with_its_records(stack: EmbeddedStack) -> None:
    write(stack.addresses, "before the crash")
    stack.kill_broker()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(stack.addresses.bootstrap_servers.split(":")[1])))
    stack.start_broker()
    assert "before the crash" in read(stack.addresses, 1)


def test_a_crashed_postgres_comes_back_with_what_was_committed(stack: EmbeddedStack) -> None:
    add_row(stack.addresses, 7)
    stack.stop_postgres(immediate=True)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(stack.addresses.dsn)
    stack.start_postgres()
    assert (7,) in table_rows(stack.addresses)


def test_starting_again_brings_back_what_stopped(stack: EmbeddedStack) -> None:
    addresses = stack.addresses
    stack.kill_broker()
    stack.stop_postgres()
    assert stack.start() == addresses
    write(addresses, "again")
    with psycopg.connect(addresses.dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_database_is_joblog_in_utc_with_a_password(stack: EmbeddedStack) -> None:
    with psycopg.connect(stack.addresses.dsn) as connection:
        shown = connection.execute("SELECT current_database(), current_setting('TimeZone')").fetchone()
    assert shown == ("joblog", "UTC")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(stack.addresses.dsn, password="guessed")  # noqa: S106 - it is wrong on purpose


def test_topics_are_not_made_by_mistyping(stack: EmbeddedStack) -> None:
    admin = AdminClient({"bootstrap.servers": stack.addresses.bootstrap_servers})
    assert admin.list_topics("mistyped", timeout=DEADLINE_S).topics["mistyped"].error is not None
    assert "mistyped" not in admin.list_topics(timeout=DEADLINE_S).topics


def test_a_second_owner_of_a_directory_is_refused_by_the_first_ones_pid(stack: EmbeddedStack) -> None:
    with pytest.raises(StackError, match=f"in use by another Joblog stack \\(process {os.getpid()}\\)"):
        EmbeddedStack(stack.directory).start()
    assert stack.start() == stack.addresses


def test_a_busy_port_is_named_and_nothing_is_left_running(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        stack = EmbeddedStack(directory, postgres_port=port)
        with pytest.raises(StackError, match=f"port {port} .* Postgres, is in use"):
            stack.start()
    with EmbeddedStack(directory, kafka=False, postgres_port=port) as stack:
        assert f":{port}/" in stack.addresses.dsn


def names_of(processes: list[psutil.Process]) -> Iterator[str]:
    """Those that are there still: a server's helpers come and go."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            yield process.name()


def owned(directory: Path, cleanup: ExitStack) -> tuple[subprocess.Popen[str], StackAddresses, list[psutil.Process]]:
    """A process that owns a stack, where its servers are, and their processes."""
    command = [sys.executable, "-c", OWNER, str(directory)]
    owner = cleanup.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    cleanup.callback(owner.kill)
    assert owner.stdout is not None
    addresses = StackAddresses(*owner.stdout.readline().split())
    servers = psutil.Process(owner.pid).children(recursive=True)
    assert {"java", "postgres"} <= set(names_of(servers))
    return owner, addresses, servers


def test_servers_of_a_killed_owner_end_and_their_directory_starts_again_with_or_without_waiting(
    directory: Path,
) -> None:
    with ExitStack() as cleanup:
        owner, before, servers = owned(directory, cleanup)
        make_topic(before)
        write(before, "kept")
        add_row(before, 1)
        owner.kill()
        owner.wait()
        wait_until_gone(servers)  # their guards end them

        owner, again, servers = owned(directory, cleanup)
        assert again == before
        assert read(before, 1) == ["kept"]
        assert table_rows(before) == [(1,)]
        owner.kill()
        owner.wait()
        with EmbeddedStack(directory) as heir:  # at once
            assert heir.addresses == before
            assert read(before, 1) == ["kept"]
            assert table_rows(before) == [(1,)]
            assert not [server for server in servers if server.is_running()]
