"""Servers that go away under load: jobs go on without Postgres, and nothing acknowledged is lost with the broker."""

import time
from typing import Any

import pytest
from joblog.services.embedded.stack import EmbeddedStack
from joblog.streams.errors import EnqueueError
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.outbox_world import OutboxWorld, outbox_of
from tests.support.redecided import decided_anew

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(600)]

#: Long enough for the projector and the relay to come to their longest pause between two tries, 10 s.
POSTGRES_AWAY_S = 60
ROLES = ["elector", "worker-1", "projector", "delays", "outbox"]


def with_outbox(installation: Any) -> OutboxWorld:
    """An outbox of the installation, in the same database; its relay is one of the roles."""
    installation.extra["JOBLOG_OUTBOX__SCHEMA_NAME"] = installation.schema
    outbox = outbox_of(installation)
    outbox.create()
    return outbox


def succeeded(installation: Any) -> int:
    return sum(events[-1]["type"] == "job.succeeded" for events in installation.events().values())


def test_jobs_go_on_while_postgres_is_away_and_the_projection_catches_up(
    own_stack: EmbeddedStack, install: Any, check_log: Any, wait_until: Any
) -> None:
    installation = install(KafkaConfig(own_stack.addresses.bootstrap_servers), own_stack.addresses.dsn)
    outbox = with_outbox(installation)
    for role in ROLES:
        installation.start(role)
    jobs: list[str] = []
    with installation.client() as client:
        jobs += client.enqueue_many("ok", [((number,), {}) for number in range(200)])
        wait_until(lambda: succeeded(installation) == len(jobs), 60, "the first jobs to succeed")
        wait_until(lambda: not installation.differences(), 60, "the projection to be there")
        with outbox.connect() as connection:
            written = outbox.outbox(connection).enqueue_many("ok", [((number,), {}) for number in range(500)])
        own_stack.stop_postgres(immediate=True)
        away_until = time.monotonic() + POSTGRES_AWAY_S
        while time.monotonic() < away_until:
            jobs += client.enqueue_many("ok", [((number,), {}) for number in range(20)])
            time.sleep(0.2)
        wait_until(lambda: succeeded(installation) >= len(jobs), 60, "all jobs to succeed without Postgres")
    assert installation.roles["projector"].poll() is None
    own_stack.start_postgres()
    jobs += written
    with outbox.connect() as connection:
        jobs.append(outbox.outbox(connection).enqueue("ok", 0))
    wait_until(lambda: succeeded(installation) == len(jobs), 60, "the jobs of the outbox to succeed")
    assert sorted(outbox.relayed()) == sorted(jobs)
    wait_until(lambda: not installation.differences(), 60, "Postgres to equal the log")
    check_log(installation, dict.fromkeys(jobs, "job.succeeded"))
    assert decided_anew(installation.kafka, installation.names, installation.lanes) >= 3 * len(jobs)


def test_nothing_acknowledged_is_lost_when_the_broker_is_killed_and_restarted(
    own_stack: EmbeddedStack, install: Any, wait_until: Any
) -> None:
    installation = install(KafkaConfig(own_stack.addresses.bootstrap_servers), own_stack.addresses.dsn)
    outbox = with_outbox(installation)
    for role in ROLES:
        installation.start(role)
    acknowledged: list[str] = []
    unknown: list[str] = []
    with installation.client() as client, outbox.connect(autocommit=True) as connection:
        writer = outbox.outbox(connection)
        for turn in range(3):
            for number in range(150):
                acknowledged.append(writer.enqueue("ok", number))
                try:
                    acknowledged.append(client.enqueue("ok", number))
                except EnqueueError as error:
                    unknown += error.job_ids
            if turn < 2:
                own_stack.kill_broker()
                own_stack.start_broker()
    wait_until(lambda: len(installation.events()) >= len(acknowledged), 120, "all acknowledged jobs")

    def ended() -> bool:
        return all(events[-1]["type"] == "job.succeeded" for events in installation.events().values())

    wait_until(ended, 120, "all jobs to succeed")
    log = installation.events()
    assert set(acknowledged) <= log.keys() <= set(acknowledged) | set(unknown)
    for job, events in log.items():
        assert [event["data"]["version"] for event in events] == list(range(1, len(events) + 1)), job
        assert [event["type"] for event in events].count("job.succeeded") == 1
    assert max(installation.runs().values()) == 1
    wait_until(lambda: not installation.differences(), 60, "Postgres to equal the log")
    assert all(process.poll() is None for process in installation.roles.values())
    assert decided_anew(installation.kafka, installation.names, installation.lanes) == sum(map(len, log.values()))
