"""Commands on queues, workers and many jobs: to which lanes they go, and what a client refuses at once."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from joblog.projections.monitor.models import Matched
from joblog.services.client.bulk import BulkOperations
from joblog.services.client.changes import check_move
from joblog.services.client.queue_settings import SettingsOfQueues
from joblog.services.client.queues import Queues
from joblog.services.client.templates import CommandRecord, Rules
from joblog.services.client.workers import Workers
from joblog.streams.contract.codec import read_command
from joblog.streams.contract.ids import lane_of_job, lane_of_queue, new_job_id
from joblog.streams.contract.wire import (
    CancelBulk,
    DrainQueue,
    PauseQueue,
    QuietWorker,
    ResumeQueue,
    ResumeWorker,
    StartBulk,
    StopWorker,
)
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.clients import KafkaConfig

RULES = Rules(8, {"hot": 3}, "/test", 10_000, {"hot": 4})
NO_TOPIC = SettingsOfQueues(KafkaConfig("nowhere:9092"), "queues", "test", 8)
FOUND = Matched(jobs=3, fence=(1,) * 8, filter={"task": "t"})
JOB = new_job_id(lane_of_queue("images", 8), 1, 1)


class Sent:
    """What was sent, in its order: the lane, and the command."""

    def __init__(self) -> None:
        self.records: list[CommandRecord] = []

    def __call__(self, records: Sequence[CommandRecord]) -> None:
        self.records += records

    @property
    def lanes(self) -> list[int | None]:
        return [record.lane for record in self.records]

    @property
    def commands(self) -> list[Any]:
        return [read_command(record.value, None).command for record in self.records]


@pytest.fixture
def sent() -> Sent:
    return Sent()


def test_a_queue_is_paused_in_each_lane_since_any_may_have_jobs_of_it(sent: Sent) -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    Queues(sent, RULES, NO_TOPIC).pause("hot", until=until, by="ann", reason="why")
    assert sent.lanes == [*range(8)]
    assert sent.commands == [PauseQueue(queue="hot", until=until, by="ann", reason="why")] * 8
    assert len({record.value for record in sent.records}) == 8  # each has an id of its own


def test_a_queue_is_drained_and_resumed_in_each_lane(sent: Sent) -> None:
    queues = Queues(sent, RULES, NO_TOPIC)
    queues.drain("images")
    queues.resume("images", by="bob")
    assert sent.lanes == [*range(8), *range(8)]
    assert sent.commands[0] == DrainQueue(queue="images")
    assert sent.commands[-1] == ResumeQueue(queue="images", by="bob")


@pytest.mark.parametrize(
    ("name", "until"),
    [("Images", None), ("images", datetime(2027, 1, 1)), ("x" * 101, None)],  # noqa: DTZ001
)
def test_what_cannot_be_paused_is_refused_at_once(sent: Sent, name: str, until: datetime | None) -> None:
    with pytest.raises(InvalidData):
        Queues(sent, RULES, NO_TOPIC).pause(name, until=until)
    assert sent.records == []


def test_an_order_goes_to_the_lane_that_the_workers_id_names(sent: Sent) -> None:
    workers = Workers(sent, RULES)
    workers.quiet("web-1:4711:0a1b2c3d@7", by="ann")
    workers.resume("web-1:4711:0a1b2c3d@7", reason="deployed")
    workers.stop("web@1:5:0a1b2c3d@0")
    assert sent.lanes == [7, 7, 0]
    assert sent.commands == [
        QuietWorker(worker="web-1:4711:0a1b2c3d@7", by="ann"),
        ResumeWorker(worker="web-1:4711:0a1b2c3d@7", reason="deployed"),
        StopWorker(worker="web@1:5:0a1b2c3d@0"),
    ]


@pytest.mark.parametrize(
    "worker", ["web-1", "web-1:4711:0a1b2c3d", "web-1:4711:0a1b2c3d@8", "web-1:4711:0a1b2c3d@1x"]
)
def test_an_id_that_names_no_lane_is_refused(sent: Sent, worker: str) -> None:
    with pytest.raises(InvalidData, match="joblog workers"):
        Workers(sent, RULES).quiet(worker)


def test_an_operation_is_sent_to_the_lane_of_its_id(sent: Sent) -> None:
    bulk = BulkOperations(sent, RULES)
    operation = bulk.start("delete", FOUND, reason="why")
    again = bulk.start("delete", FOUND, operation=operation)
    bulk.cancel(operation)
    assert again == operation
    assert sent.lanes == [lane_of_job(operation)] * 3
    first, _, last = sent.commands
    assert isinstance(first, StartBulk)
    assert (first.operation, first.filter, first.fence, first.rate) == (operation, {"task": "t"}, (1,) * 8, 200.0)
    assert last == CancelBulk(operation=operation)


@pytest.mark.parametrize(
    ("action", "fields", "said"),
    [
        ("move", {}, "queue is missing"),
        ("delete", {"queue": "slow"}, "queue has no effect"),
        ("set_priority", {}, "priority"),
        ("requeue", {"priority": 1}, "priority"),
        ("delete", {"rate": 0}, "rate"),
        ("eat", {}, "action"),
    ],
)
def test_an_operation_that_makes_no_sense_is_refused(
    sent: Sent, action: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidData, match=said):
        BulkOperations(sent, RULES).start(action, FOUND, **fields)
    assert sent.records == []


def test_a_job_is_moved_to_what_can_be_a_queue() -> None:
    check_move(JOB, "images", RULES)
    with pytest.raises(InvalidData, match="write images"):
        check_move(JOB, "Images", RULES)
    with pytest.raises(InvalidData, match="lane"):
        check_move(new_job_id(8, 1, 1), "images", RULES)
