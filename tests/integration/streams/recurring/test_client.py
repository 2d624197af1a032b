"""What a client writes of recurring jobs, and what stays of it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from joblog.services.client.client import Client
from joblog.services.client.recurring import UnknownRecurring
from joblog.services.tasks.recurring import recurrences_of, recurring
from joblog.services.tasks.task import task
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.clients import KafkaConfig

pytestmark = pytest.mark.broker


@recurring("0 2 * * *", zone="Europe/Berlin", args=("all",))
@task("reports.send", queue="reports")
def send(whom: str) -> None:
    """Nothing: the test looks at its definition."""


@pytest.fixture
def client(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> Iterator[Client]:
    with Client(kafka, topics, lanes) as made:
        yield made


def test_registering_again_changes_nothing_and_leaves_a_pause(client: Client) -> None:
    assert client.recurring.register(recurrences_of([send])) == ["reports.send"]
    client.recurring.pause("reports.send")
    assert client.recurring.register(recurrences_of([send])) == []
    row = client.recurring.get("reports.send")
    assert row.definition is not None
    assert (row.definition.version, row.definition.queue, row.definition.args) == (1, "reports", ("all",))
    assert row.pause is not None
    assert row.pause.paused


def test_an_edit_keeps_the_rest_and_a_removal_leaves_nothing(client: Client) -> None:
    before = client.recurring.add_or_update("a", "t", "0 2 * * *", args=(1,))
    after = client.recurring.edit("a", schedule="0 3 * * *")
    assert (after.version, after.args, after.schedule) == (2, (1,), "0 3 * * *")
    assert after.starts_at >= before.starts_at
    with pytest.raises(InvalidData, match="position 1"):
        client.recurring.edit("a", schedule="61 3 * * *")
    assert client.recurring.remove("a")
    assert not client.recurring.remove("a")
    assert client.recurring.list() == []
    with pytest.raises(UnknownRecurring):
        client.recurring.pause("a")


def test_a_skip_that_is_said_again_leaves_out_the_same_occurrence(client: Client) -> None:
    client.recurring.add_or_update("a", "t", "@yearly")
    first = client.recurring.skip_next("a")
    assert client.recurring.skip_next("a") == first
    (next_one,) = client.recurring.get("a").upcoming(datetime.now(UTC), 1)
    assert next_one.year == first.year + 1


def test_a_pause_is_kept_when_something_of_that_name_is_removed(client: Client) -> None:
    client.recurring.add_or_update("a", "t", "@yearly")
    client.recurring.pause("a")
    assert not client.recurring.remove("a|pause")
    assert client.recurring.get("a").is_paused(datetime.now(UTC))


def test_a_pause_that_is_over_before_it_begins_is_refused(client: Client) -> None:
    client.recurring.add_or_update("a", "t", "@yearly")
    with pytest.raises(InvalidData, match="has no effect"):
        client.recurring.pause("a", until=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidData, match="a time needs a zone"):
        client.recurring.pause("a", until=datetime(2220, 1, 1))  # noqa: DTZ001 - what is refused
    assert client.recurring.get("a").pause is None
