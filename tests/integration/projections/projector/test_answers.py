"""What a projector tells lanes of jobs that they have forgotten: from a real Postgres, and over a real broker."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from confluent_kafka import KafkaError
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.projector import answers
from joblog.projections.projector.answers import Answering
from joblog.projections.projector.tables import Tables
from joblog.services.client.client import Client
from joblog.streams.contract import wire
from joblog.streams.contract.codec import read_report
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.relations import OUTCOME_BYTES_MAX
from joblog.streams.contract.states import DELETED, ENQUEUED, ContinueOn, State
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector import quiet_period
from joblog.streams.elector.elector import Elector
from joblog.streams.errors import OffsetConflict
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.rules import LaneRules
from joblog.streams.metrics import Meters
from msgspec import json

from tests.support import projection_settings
from tests.support.projection_events import ERROR, Story, placed, records, sought_event
from tests.support.projection_settings import LANES, Setting, WaitUntil, apply, running, sample

dsn = projection_settings.dsn
setting = projection_settings.setting
pytestmark = [pytest.mark.broker, pytest.mark.database]

NAMES = TopicNames("test.")
NOBODY = new_job_id(1, 1, 1)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
SOON = NOW + timedelta(seconds=60)


class Topic:
    """Takes what a producer is given, and says at once what became of it."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int, wire.AnyReport]] = []
        self.error: KafkaError | None = None
        self.is_full = False

    def produce(
        self, topic: str, value: bytes, key: str, partition: int, on_delivery: Callable[[Any, Any], None]
    ) -> None:
        if self.is_full:
            raise BufferError
        report = read_report(value)
        assert isinstance(report, wire.ParentFound)
        assert report.job_id == key
        if self.error is None:
            self.taken.append((topic, partition, report))
        on_delivery(self.error, None)

    def poll(self, _timeout: float) -> int:
        return 0

    def flush(self, _timeout: float) -> int:
        return 0

    def close(self) -> None:
        pass

    def __len__(self) -> int:
        return 0


class Desk:
    """A projector's answers, and what lanes got of them."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.topic, self.meters = Topic(), Meters()
        config = KafkaConfig("127.0.0.1:1")
        make, clock = (lambda: self.topic), NOW.timestamp
        self.answering = Answering(config, NAMES, self.meters, make=make, clock=clock)
        self.tables = Tables(dsn, schema, range(LANES), sought=self.answering.questions)

    def ask(self, *parents: str, until: datetime = SOON) -> None:
        values = [(lane_of(parent), sought_event(parent, until, f"of {parent}")) for parent in parents]
        for value in values:
            apply(self.tables, placed([value], first_offset=self.tables.positions[value[0]]))

    def answered(self) -> list[wire.ParentFound]:
        taken = len(self.topic.taken)
        self.tables.answer(self.answering)
        found = []
        for topic, lane, report in self.topic.taken[taken:]:
            assert isinstance(report, wire.ParentFound)
            assert (topic, lane) == (NAMES.reports, lane_of(report.job_id))
            assert report.question == f"of {report.job_id}"
            found.append(report)
        return found

    def counted(self, outcome: str) -> float:
        return sample(self.meters, answers.COUNTED, outcome=outcome) or 0


def lane_of(job: str) -> int:
    return int(job[15:18], 16)


@pytest.fixture
def desk(dsn: str, schema: str) -> Iterator[Desk]:
    made = Desk(dsn, schema)
    yield made
    made.tables.close()


def test_a_lane_is_told_how_a_job_ended_and_what_it_left(desk: Desk) -> None:
    good = Story(lane=1, random=1).enqueued().processing().succeeded({"größe": [1]})
    good.parameter_set("after", 1)
    big = Story(lane=1, random=2).enqueued().processing().succeeded("x" * OUTCOME_BYTES_MAX)
    bad = Story(lane=1, random=3).enqueued().processing().failed()
    gone = Story(lane=0, random=4).enqueued().processing().failed().deleted()
    apply(desk.tables, records(good, big, bad, gone))
    desk.ask(good.id, big.id, bad.id, gone.id, NOBODY)
    told = {one.job_id: one for one in desk.answered()}
    states = {good.id: "Succeeded", big.id: "Succeeded", bad.id: "Failed", gone.id: "Deleted", NOBODY: None}
    assert {job: one.state for job, one in told.items()} == states
    assert json.decode(told[good.id].result) == {"größe": [1]}
    assert (told[big.id].result, told[big.id].omitted) == (
        wire.NO_RAW,
        f"the result has {OUTCOME_BYTES_MAX + 2} bytes as JSON, more than {OUTCOME_BYTES_MAX}",
    )
    assert told[bad.id].exception == wire.JobException(**{**ERROR, "types": tuple(ERROR["types"])})  # type: ignore[arg-type]
    assert (told[gone.id].exception, told[gone.id].omitted) == (None, None)
    assert (desk.counted("found"), desk.counted("absent")) == (4, 1)
    assert desk.answered() == []


def test_a_job_that_lives_again_is_not_spoken_of(desk: Desk) -> None:
    story = Story(lane=1, random=1).enqueued().processing().succeeded()
    apply(desk.tables, records(story))
    desk.ask(story.id)
    story.values.clear()
    apply(desk.tables, records(story.enqueued(), first_offset=desk.tables.positions[1]))
    assert desk.answered() == []
    assert desk.counted("live") == 1


def test_a_question_is_answered_by_the_tables_as_they_are_behind_it(desk: Desk, dsn: str, schema: str) -> None:
    story = Story(lane=1, random=1).enqueued().processing().succeeded()
    apply(desk.tables, records(story))
    desk.ask(story.id)
    with psycopg.connect(dsn, options=f"-c search_path={schema}", autocommit=True) as other:
        # As if other tables, which are not so far, had been put in the place of these.
        other.execute("UPDATE offsets SET next_offset = 3 WHERE lane = 1")
    assert desk.answered() == []
    assert desk.counted("late") == 1


def test_what_was_not_applied_is_not_answered(desk: Desk, dsn: str, schema: str) -> None:
    with psycopg.connect(dsn, options=f"-c search_path={schema}", autocommit=True) as other:
        other.execute("UPDATE offsets SET next_offset = 5 WHERE lane = 1")
    with pytest.raises(OffsetConflict):
        desk.ask(NOBODY)
    assert desk.answering.questions == {}


def test_a_question_to_which_nobody_waits_for_the_answer_is_left_out(desk: Desk) -> None:
    desk.ask(NOBODY, until=NOW - timedelta(seconds=1))
    assert desk.answered() == []
    assert desk.counted("late") == 1
    desk.ask(NOBODY, until=NOW - timedelta(seconds=1))
    desk.ask(NOBODY)
    assert [one.state for one in desk.answered()] == [None]


def test_only_so_many_are_answered_at_once_and_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LOOK_MAX", 2)
    monkeypatch.setattr(answers, "QUESTIONS_MAX", 3)
    jobs = [new_job_id(0, 1, n) for n in range(5)]
    values = [(0, sought_event(job, SOON, f"of {job}")) for job in jobs]
    apply(desk.tables, placed(values))
    assert [one.job_id for one in desk.answered()] == jobs[2:4]
    assert [one.job_id for one in desk.answered()] == jobs[4:]
    assert desk.answered() == []
    assert desk.counted("late") == 2


def test_an_answer_that_kafka_does_not_take_is_counted_and_the_next_one_goes_on(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.topic.error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    for _ in range(2):
        desk.ask(NOBODY)
        assert desk.answered() == []
    assert [one.message for one in caplog.records] == ["projector.unanswered"]
    desk.topic.error, desk.topic.is_full = None, True
    desk.ask(NOBODY)
    assert desk.answered() == []
    assert desk.counted("unsent") == 3
    desk.topic.is_full = False
    desk.ask(NOBODY)
    assert [one.state for one in desk.answered()] == [None]


@pytest.fixture
def lanes() -> int:
    return LANES


def test_parents_that_a_lane_has_forgotten_and_that_never_were(
    setting: Setting,
    kafka: KafkaConfig,
    topics: TopicNames,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quiet_period, "QUIET_S", 0.0)  # there are no workers to wait for
    stop, meters, health = threading.Event(), Meters(role="elector"), Health("elector")
    rules = LaneRules(remembered=0, failed_kept=0, pending_ms=1_500)
    elector = Elector(kafka, topics, LANES, instance="e", meters=meters, health=health, rules=rules)
    thread = threading.Thread(target=elector.run, args=(stop,))
    thread.start()
    answering = Answering(kafka, topics, setting.meters)
    try:
        with (
            running(setting.projector(answering=answering)),
            Client(kafka, topics, LANES) as client,
            Monitor(setting.dsn, setting.schema) as monitor,
        ):
            known = client.enqueue("t")
            client.delete(known)
            wait_until(lambda: (seen := monitor.job(known)) and seen.state is DELETED, 30, "the end of the parent")
            runs = client.continue_with(known, "t", on=ContinueOn.DELETED)
            never = client.continue_with(NOBODY, "t", on=ContinueOn.ENDED)
            wait_until(lambda: (seen := monitor.job(runs)) and seen.state is ENQUEUED, 20, "the continuation")
            seen = wait_until(lambda: (one := monitor.job(never)) and one.state is DELETED and one, 20, "giving up")
            assert "Postgres does not have it" in seen.reason
            told = monitor.job(runs)
            assert told is not None
            assert told.history[0].reason == f"Job {known} ended as Deleted"
            assert sample(meters, "joblog_stale_reports_total", type="parent.found") in {None, 0}
            assert State(told.state) is ENQUEUED
        assert setting.differences() == []
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
