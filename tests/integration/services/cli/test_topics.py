"""`joblog topics` and what the doctor says of topics, on the real broker."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.cimpl import NewPartitions
from joblog.services.cli.app import app
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.contract import deadletters
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import InvalidData
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import alter_topics
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.topic_rules import Difference
from typer.testing import CliRunner, Result

pytestmark = [pytest.mark.broker, pytest.mark.database]


class Joblog:
    """The command line with the settings of one installation."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments, env=self.environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*arguments, "--output", "json").stdout.splitlines()]

    def found(self, level: str) -> dict[str, dict[str, Any]]:
        return {row["check"]: row for row in self.rows("doctor") if row["level"] == level}


@pytest.fixture
def joblog(stack: StackAddresses, topics: TopicNames, schema: str) -> Joblog:
    return Joblog(
        {
            "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
            "JOBLOG_POSTGRES__DSN": stack.dsn,
            "JOBLOG_POSTGRES__SCHEMA_NAME": schema,
            "JOBLOG_TOPIC_PREFIX": topics.prefix,
            "JOBLOG_LANES": "2",
        }
    )


@pytest.fixture
def short(kafka: KafkaConfig, topics: TopicNames) -> dict[str, str]:
    """Reports that are kept for three days, as they once were; and the change that is needed."""
    alter_topics(kafka, [Difference(topics.reports, "retention.ms", "", "259200000")])
    return {"topic": topics.reports, "setting": "retention.ms", "before": "259200000", "now": "1209600000"}


def test_topics_with_other_settings_are_reported_by_create_and_changed_by_update(
    joblog: Joblog, short: dict[str, str], topics: TopicNames
) -> None:
    reported = joblog("topics", "create").stderr
    assert f"{topics.reports}: retention.ms is 259200000, not 1209600000; `joblog topics update` changes" in reported
    assert joblog.rows("topics", "update", "--dry-run") == [short]
    assert joblog.rows("topics", "update", topics.commands) == []
    assert joblog.rows("topics", "update", topics.reports) == [short]
    assert joblog.rows("topics", "update") == []
    assert "nothing to change" in joblog("topics", "update").stderr
    assert "retention" not in joblog("topics", "create").stderr
    with pytest.raises(InvalidData, match="reprots: not a topic of this installation"):
        joblog("topics", "update", "reprots")


def test_the_doctor_fails_on_reports_that_are_not_kept_as_long_as_commands(
    joblog: Joblog, short: dict[str, str], topics: TopicNames
) -> None:
    finding = joblog.found("fail")[topics.reports]
    assert "retention.ms is 259200000" in finding["finding"]
    assert finding["fix"] == f"joblog topics update {topics.reports}"
    joblog("topics", "update")
    assert topics.reports not in joblog.found("fail") | joblog.found("warn")


def test_the_doctor_sees_partitions_that_somebody_added(
    joblog: Joblog, kafka: KafkaConfig, topics: TopicNames, wait_until: Callable[..., Any]
) -> None:
    admin = clients.admin(kafka)
    for future in admin.create_partitions([NewPartitions(topics.delay("1h"), 3)]).values():
        future.result(30)
    finding = wait_until(lambda: joblog.found("fail").get("partitions"), 30, "the broker to show the partitions")
    assert f"{topics.delay('1h')} has 3 partitions, the others have 2" in finding["finding"]
    assert "recreate" in finding["fix"]


def test_a_dead_letter_with_an_internal_error_fails_and_others_are_a_warning(
    joblog: Joblog, kafka: KafkaConfig, topics: TopicNames
) -> None:
    sender = clients.producer(kafka, "test")

    def bury(code: str, offset: int) -> None:
        headers = deadletters.headers(code, "reason", "delays", topics.delay("now"), 1, offset)
        sender.produce(topics.deadletters, b"value", headers=headers)
        assert sender.flush(30) == 0

    bury("undecodable", 3)
    assert joblog.found("warn")["dead letters"]["fix"] == "joblog deadletters list"
    assert "dead letters" not in joblog.found("fail")
    bury("internal_error", 4)
    bury("invalid_data", 5)
    finding = joblog.found("fail")["dead letters"]
    assert f"{topics.delay('now')}/1@4" in finding["finding"]
    assert "1 with an internal error" in finding["finding"]
    shown = re.match(r"joblog (deadletters) (show) (\d:\d+);", finding["fix"])
    assert shown is not None
    assert "internal_error" in joblog(*shown.groups()).stdout
