"""Recurring jobs while everything around them is killed, or paused: each occurrence's job exists once."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient
from joblog.services.client.client import Client
from joblog.services.embedded.stack import EmbeddedStack
from joblog.streams.contract.recurring import Definition, Misfire
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.recurring.jobs import Installation, job_of
from joblog.streams.recurring.schedule import between, schedule_of

from tests.support.pausing import pause, resume

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(300)]

IDS = [f"second-{number}" for number in range(10)]
SCHEDULERS = ["recurring-a", "recurring-b"]
A, B = [SCHEDULERS[0]], [SCHEDULERS[1]]
#: Who is killed: one while the other goes on, ten times; between them both at once, together with the broker.
VICTIMS = [*[A, B] * 3, SCHEDULERS, *[A, B] * 2]
BROKER = VICTIMS.index(SCHEDULERS)
TAKEOVER_S = 15
#: From the broker's start until all processes are with it again.
RECOVERY_S = 40
CREATIONS = {"job.enqueued"}


def define(client: Client) -> list[Definition]:
    return [
        client.recurring.add_or_update(one, "nobody.works", "* * * * * *", misfire=Misfire.STRICT, misfire_cap=100)
        for one in IDS
    ]


def everybody_is_past(client: Client, instant: datetime) -> bool:
    rows = client.recurring.list()
    return len(rows) == len(IDS) and all(row.progress and row.progress.through > instant for row in rows)


def shares(installation: Any) -> list[int]:
    """How many partitions each member of the group has; none while they are given away anew."""
    name = f"{installation.names.prefix}recurring"
    admin = AdminClient({"bootstrap.servers": installation.kafka.bootstrap_servers})
    group = admin.describe_consumer_groups([name])[name].result(10)
    if group.state is not ConsumerGroupState.STABLE:
        return []
    return [len(member.assignment.topic_partitions) for member in group.members]


def check_each_once(
    installation: Any, wait_until: Callable[..., Any], made: list[Definition], end: datetime, least: int
) -> None:
    """Every occurrence until the end has one job, which was created once, and there are no others."""
    where = Installation(installation.lanes, {}, {})
    expected = {
        job_of(definition, occurrence, where)
        for definition in made
        for occurrence in between(schedule_of(definition), definition.starts_at, end)
    }
    assert len(expected) >= least

    def created() -> Counter[str]:
        return Counter(
            job for job, events in installation.events().items() for event in events if event["type"] in CREATIONS
        )

    wait_until(lambda: expected <= created().keys(), 30, "the events of all jobs")
    log = installation.events()
    assert {job: times for job, times in created().items() if times > 1} == {}
    until_end = {
        job for job, events in log.items() if events[0]["data"]["spec"]["parameters"]["Time"] <= end.isoformat()
    }
    assert until_end == expected
    parameters = [events[0]["data"]["spec"]["parameters"] for events in log.values()]
    assert {one["RecurringJobId"] for one in parameters} == set(IDS)


def test_each_occurrence_is_created_once_while_its_processes_and_the_broker_are_killed(
    own_stack: EmbeddedStack, install: Any, wait_until: Any
) -> None:
    installation = install(KafkaConfig(own_stack.addresses.bootstrap_servers), own_stack.addresses.dsn)
    for role in ("elector-a", *SCHEDULERS):
        installation.start(role)
    with installation.client() as client:

        def going_on(after: datetime, timeout_s: float, what: str) -> None:
            wait_until(lambda: everybody_is_past(client, after), timeout_s, what)

        made = define(client)
        going_on(made[-1].starts_at, 20, "the first occurrences")
        for number, victims in enumerate(VICTIMS):
            for victim in victims:
                installation.kill(victim)
            if number == BROKER:
                own_stack.kill_broker()
                own_stack.start_broker()
            if victims == SCHEDULERS:
                for victim in victims:
                    installation.start(victim)
                going_on(datetime.now(UTC), RECOVERY_S, "what begins after nobody was left")
            else:
                going_on(datetime.now(UTC), TAKEOVER_S, f"the other than {victims[0]}")
                installation.start(victims[0])
        end = datetime.now(UTC)
        going_on(end, TAKEOVER_S, "the end")
    check_each_once(installation, wait_until, made, end, 200)
    assert installation.kills == dict.fromkeys(SCHEDULERS, 6)
    assert all(process.poll() is None for process in installation.roles.values())


def test_a_process_that_is_paused_past_its_session_and_continued_repeats_nothing(
    installation: Any, wait_until: Any
) -> None:
    for role in ("elector-a", *SCHEDULERS):
        installation.start(role)
    with installation.client() as client:
        made = define(client)
        wait_until(lambda: shares(installation) == [1, 1], 30, "each process to have its share")
        wait_until(lambda: everybody_is_past(client, made[-1].starts_at), 20, "the first occurrences")
        paused = installation.roles[SCHEDULERS[0]]
        pause(paused)
        paused_at = datetime.now(UTC)
        wait_until(lambda: everybody_is_past(client, paused_at), TAKEOVER_S, "the other to take over")
        resume(paused)  # it still believes that it has what the other one has
        resumed_at = datetime.now(UTC)
        wait_until(lambda: everybody_is_past(client, resumed_at), TAKEOVER_S, "occurrences with both")
        installation.kill(SCHEDULERS[1])
        end = datetime.now(UTC)
        wait_until(lambda: everybody_is_past(client, end), TAKEOVER_S, "the one that was paused to go on")
    check_each_once(installation, wait_until, made, end, 50)
