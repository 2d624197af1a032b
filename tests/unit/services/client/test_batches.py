"""What a client sends for a batch, and what it refuses before it sends anything."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from joblog.services.client.batch_calls import BatchCalls
from joblog.services.client.options import Call, JobDraft, JobOptions
from joblog.services.client.sending import NotAcknowledged
from joblog.services.client.templates import CommandRecord, Rules
from joblog.services.client.transactions import TransactionSender
from joblog.streams.contract.codec import read_command
from joblog.streams.contract.ids import lane_of_job, new_job_id
from joblog.streams.contract.states import AWAITING, PROCESSING, SUCCEEDED, ContinueOn
from joblog.streams.errors import InvalidData, JoblogError
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES, QUEUES

EACH = [JobOptions(queue=queue) for (queue,) in QUEUES.values()]


class Desk(BatchCalls):
    """A client that keeps what it would send."""

    def __init__(self, filters: Sequence[Any] = ()) -> None:
        super().__init__(Rules(LANES, {}, "/test", 1000), filters)
        self.transactions: list[list[CommandRecord]] = []

    def send(self, records: Sequence[CommandRecord]) -> None:
        self.transactions.append(list(records))

    def send_together(self, records: Sequence[CommandRecord], job_ids: Sequence[str]) -> None:
        assert set(job_ids) <= {record.job_id for record in records}
        self.transactions.append(list(records))

    @property
    def commands(self) -> list[Any]:
        return [read_command(one.value, None).command for sent in self.transactions for one in sent]

    @property
    def created(self) -> int:
        return sum(one.type == "job.create" for one in self.commands)


class Flaky(Desk):
    """Its second transaction fails once."""

    has_failed = False

    def send_together(self, records: Sequence[CommandRecord], job_ids: Sequence[str]) -> None:
        if self.transactions and not self.has_failed:
            self.has_failed = True
            raise NotAcknowledged("the broker is away", job_ids, job_ids)
        super().send_together(records, job_ids)


def kinds_of(world: BatchWorld, batch_id: str) -> list[str]:
    return [kind for kind, _ in world.told[batch_id] if kind != "batch.progressed"]


def kinds(desk: Desk) -> list[str]:
    return [one.type for one in desk.commands]


def test_a_batch_is_one_transaction_with_marks_behind_its_jobs() -> None:
    desk = Desk()
    with desk.batch("import") as batch:
        first = batch.enqueue("t", 1, options=EACH[0])
        batch.schedule("t", 2, delay=60, options=EACH[1])
        batch.continue_with(first, "t", 3, options=EACH[0])
        batch.enqueue_many("t", [((n,), {}) for n in range(3)], EACH[1])
        assert desk.transactions == []
    assert len(desk.transactions) == 1
    assert kinds(desk) == ["batch.create", *["job.create"] * 6, "batch.mark", "batch.mark"]
    create, *jobs, mark, other = desk.commands
    assert (create.batch_id, create.lanes, create.jobs, create.description) == (batch.id, (0, 1), 6, "import")
    assert {job.batch for job in jobs} == {batch.id}
    assert [job.job_id for job in jobs] == batch.job_ids
    assert [lane_of_job(one.mark_id) for one in (mark, other)] == [0, 1]


def test_an_exception_in_the_block_sends_nothing() -> None:
    desk = Desk()
    with pytest.raises(InvalidData), desk.batch() as batch:
        batch.enqueue_many("t", [((1,), {}), ((object(),), {})])
    assert desk.transactions == []


def test_the_same_commands_are_sent_again_after_an_unknown_outcome() -> None:
    desk = Desk()
    with desk.batch() as batch:
        batch.enqueue("t", options=EACH[0])
    batch.commit()
    assert desk.transactions[0] == desk.transactions[1]
    again = Desk()
    with again.batch(batch_id=batch.id) as other:
        other.enqueue("t", options=JobOptions(queue=EACH[0].queue, job_id=batch.job_ids[0]))
    assert [one.job_id for one in again.transactions[0]] == [one.job_id for one in desk.transactions[0]]


def test_a_batch_that_is_sent_within_its_block_is_sent_once_and_takes_no_more_jobs() -> None:
    """They would have ids, and would never be sent."""
    desk = Desk()
    with desk.batch() as batch:
        batch.enqueue("t", options=EACH[0])
        batch.commit()
        with pytest.raises(JoblogError, match="attach"):
            batch.enqueue("t", options=EACH[0])
    assert len(desk.transactions) == 1
    assert desk.created == len(batch.job_ids) == 1


def test_a_batch_that_could_not_be_sent_within_its_block_is_sent_at_the_end_of_it() -> None:
    desk = Flaky()
    desk.transactions.append([])
    with desk.batch() as batch:
        batch.enqueue("t", options=EACH[0])
        with pytest.raises(NotAcknowledged):
            batch.commit()
    assert desk.created == 1


def test_lanes_do_what_clients_send_with_inner_batches_and_whole_batches_that_wait() -> None:
    desk, world = Desk(), BatchWorld()
    with desk.batch("outer") as outer:
        outer.enqueue("t", options=EACH[0])
        with outer.batch("inner") as inner:
            inner.enqueue_many("t", [((n,), {}) for n in range(3)], EACH[1])
    with desk.batch("then", after_batch=outer.id, on=ContinueOn.FINISHED) as then:
        first = then.enqueue("t", options=EACH[2])
        then.continue_with(first, "t", options=EACH[2])
        with then.batch("within") as within:
            within.enqueue("t", options=EACH[0])
    with then.attach() as more:
        more.enqueue("t", options=EACH[1])
    last = desk.continue_batch(then.id, "t", options=EACH[0])
    first_sent, *others = desk.transactions
    for sent in (*others, first_sent):
        for record in sent:
            world.send(read_command(record.value, None).command, lane_of_job(record.job_id))
    world.members[then.id] = [*then.job_ids, *more.job_ids]
    world.unsteady.add(then.id)
    world.until_quiet()
    assert all(told[-1][1].state is SUCCEEDED for told in world.told.values())
    assert (world.told[outer.id][-1][1].total, world.told[then.id][-1][1].total) == (2, 4)
    assert world.folds[last].state is SUCCEEDED
    order = [run.job_id for _, run in world.runs]
    assert max(map(order.index, outer.job_ids)) < min(map(order.index, then.job_ids))
    assert order[-1] == last


def test_what_makes_no_sense_in_a_batch_is_refused() -> None:
    desk = Desk()
    some_job = new_job_id(0, 1)
    with desk.batch() as batch:
        for options in (JobOptions(idempotency_key="k"), JobOptions(batch=some_job)):
            with pytest.raises(InvalidData):
                batch.enqueue("t", options=options)
        with pytest.raises(InvalidData, match="idempotency_key"):
            batch.enqueue_many("t", [Call((), {}, "k")])
        with pytest.raises(InvalidData, match="only creates jobs"):
            batch.delete(some_job)
        with pytest.raises(InvalidData, match="that was sent"):
            batch.attach()
    with desk.batch(after=some_job) as waiting:
        with pytest.raises(InvalidData, match="none of those that were added here"):
            waiting.continue_with(some_job, "t")
        with pytest.raises(InvalidData, match="nothing else"):
            waiting.enqueue("t", options=JobOptions(after_batch=some_job))
    with pytest.raises(JoblogError, match=r"batch\.attach"):
        batch.enqueue("t")
    for wrong in ({"after": some_job, "after_batch": some_job}, {"on": ContinueOn.FINISHED}, {"batch_id": "x"}):
        with pytest.raises(InvalidData):
            desk.batch(**wrong)
    with pytest.raises(InvalidData, match="not for both"):
        JobOptions(parent=some_job, after_batch=some_job)


def test_a_batch_that_is_too_large_for_one_transaction_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblog.services.client.batch_parts.JOBS_MAX", 5)
    desk = Desk()
    with pytest.raises(InvalidData, match="in_parts=True"), desk.batch() as batch:
        batch.enqueue_many("t", [((n,), {}) for n in range(6)])
    assert desk.transactions == []


@pytest.mark.parametrize("limit", ["PART_JOBS_MAX", "PART_BYTES_MAX"])
def test_a_batch_in_parts_does_not_end_before_its_last_part(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"joblog.services.client.batch_parts.{limit}", 5 if limit == "PART_JOBS_MAX" else 2_000)
    desk, world = Flaky(), BatchWorld()
    batch = desk.batch(in_parts=True)
    for number in range(20):
        batch.enqueue("t", number, options=EACH[number % LANES])
    with pytest.raises(NotAcknowledged) as raised, batch:
        pass
    assert len(desk.transactions) == 1
    assert 0 < len(raised.value.job_ids) < 20
    assert set(raised.value.job_ids).isdisjoint(one.job_id for one in desk.transactions[0])
    continuation = desk.continue_batch(batch.id, "t", options=EACH[0])
    sent = list(desk.commands)
    world.send_all(sent)
    world.unsteady.add(batch.id)  # in this world's eyes, as it knows no jobs that are still to come
    world.until_quiet()
    assert (world.told[batch.id][-1][1].state, world.told[batch.id][-1][1].total) == (PROCESSING, 20)
    assert world.folds[continuation].state is AWAITING
    batch.commit()
    assert len(desk.transactions) > 3
    world.send_all(desk.commands[len(sent) :])
    assert len({one.job_id for one in desk.commands if one.type == "job.create"}) == 20 + 1 == desk.created
    world.members[batch.id] = batch.job_ids
    world.until_quiet()
    assert kinds_of(world, batch.id) == ["batch.created", "batch.succeeded"]
    assert world.folds[continuation].state is SUCCEEDED


def test_filters_hear_of_jobs_when_the_batch_was_sent() -> None:
    heard: list[str] = []

    class Listening:
        def on_creating(self, draft: JobDraft) -> JobDraft:
            return draft

        def on_created(self, job_id: str, _draft: JobDraft) -> None:
            heard.append(job_id)

    desk = Desk([Listening()])
    with desk.batch() as batch:
        batch.enqueue("t")
        with batch.batch() as inner:
            inner.enqueue("t")
        assert heard == []
    assert sorted(heard) == sorted(batch.job_ids)


def test_a_batch_is_not_sent_without_a_broker_and_that_takes_no_longer_than_it_may() -> None:
    sender = TransactionSender(KafkaConfig("127.0.0.1:1"), "commands", "test", 0.3, lambda: None)
    began = time.monotonic()
    job_id = new_job_id(0, 1)
    with pytest.raises(NotAcknowledged) as raised:
        sender.send([CommandRecord(job_id, b"{}")], [job_id])
    assert raised.value.unacknowledged == (job_id,)
    assert time.monotonic() - began < 4
    sender.close()
    with pytest.raises(JoblogError, match="closed"):
        sender.send([], [])
