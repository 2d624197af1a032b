"""Recurring jobs while the processes that create them are killed: each occurrence's job exists once."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.streams.contract.recurring import Misfire
from joblog.streams.recurring.jobs import Installation, job_of
from joblog.streams.recurring.schedule import between, schedule_of

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(300)]

IDS = [f"second-{number}" for number in range(10)]
KILLS = 10
TAKEOVER_S = 15
CREATIONS = {"job.enqueued"}


def everybody_is_past(client: Client, instant: datetime) -> bool:
    rows = client.recurring.list()
    return len(rows) == len(IDS) and all(row.progress and row.progress.through > instant for row in rows)


def test_each_occurrence_is_created_once_while_its_processes_are_killed_in_turns(
    installation: Any, wait_until: Any
) -> None:
    for role in ("elector-a", "recurring-a", "recurring-b"):
        installation.start(role)
    with installation.client() as client:
        made = [
            client.recurring.add_or_update(
                recurring_id, "nobody.works", "* * * * * *", misfire=Misfire.STRICT, misfire_cap=100
            )
            for recurring_id in IDS
        ]
        wait_until(lambda: everybody_is_past(client, made[-1].starts_at), 20, "the first occurrences")
        for number in range(KILLS):
            victim = ("recurring-a", "recurring-b")[number % 2]
            installation.kill(victim)
            killed_at = datetime.now(UTC)
            wait_until(lambda at=killed_at: everybody_is_past(client, at), TAKEOVER_S, f"the other than {victim}")
            installation.start(victim)
        end = datetime.now(UTC)
        wait_until(lambda: everybody_is_past(client, end), TAKEOVER_S, "the end")

    where = Installation(installation.lanes, {}, {})
    expected = {
        job_of(definition, occurrence, where)
        for definition in made
        for occurrence in between(schedule_of(definition), definition.starts_at, end)
    }
    assert len(expected) >= 200

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
    assert installation.kills == {"recurring-a": KILLS // 2, "recurring-b": KILLS // 2}
