import os
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.services.client.options import (
    Call,
    CreationCancelled,
    JobDraft,
    JobOptions,
    drafted,
    due_at,
    with_options,
)
from joblog.services.client.sending import NotAcknowledged
from joblog.services.settings.model import Settings
from joblog.services.tasks.task import task
from joblog.streams.contract.ids import hashed_job_id, lane_of_queue, new_job_id
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import EnqueueError, InvalidData, JoblogError, SettingsError
from joblog.streams.kafka.clients import KafkaConfig

NOBODY = KafkaConfig("127.0.0.1:1", {"log_level": "0"})


@task("images.shrink", queue="images")
def shrink(path: str) -> None: ...


def client(**options: object) -> Client:
    return Client(NOBODY, TopicNames(), 4, timeout_s=0.5, **options)  # type: ignore[arg-type]


class Refusing:
    def on_creating(self, draft: JobDraft) -> JobDraft | None:
        return None if "private" in draft.args else draft

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        raise AssertionError(f"{job_id} cannot be created without a broker: {draft}")


def test_a_task_brings_its_queue_and_options_another() -> None:
    assert drafted(shrink, Call(["a"]), JobOptions()) == JobDraft(
        "images.shrink", ["a"], {}, JobOptions(queue="images")
    )
    assert drafted(shrink, Call(), JobOptions(queue="fast")).options.queue == "fast"
    assert drafted("images.shrink", Call(), JobOptions()).options.queue == "default"


def test_a_call_brings_its_key_and_id() -> None:
    options = drafted("a", Call(idempotency_key="k", job_id="i"), JobOptions(idempotency_key="x", job_id="y")).options
    assert (options.idempotency_key, options.job_id) == ("k", "i")


def test_with_options_is_replace() -> None:
    options = JobOptions(queue="a", priority=3)
    assert with_options(options, priority=4) == replace(options, priority=4)


def test_a_delay_is_from_now_on_and_a_time_stands() -> None:
    before = datetime.now(UTC)
    assert timedelta(0) <= due_at(timedelta(minutes=1), None) - before - timedelta(minutes=1) < timedelta(seconds=10)
    assert timedelta(0) <= due_at(60, None) - before - timedelta(minutes=1) < timedelta(seconds=10)
    assert due_at(None, before) == before


@pytest.mark.parametrize(
    ("delay", "at"), [(None, None), (1, datetime(2027, 1, 1, tzinfo=UTC)), (1e300, None), (float("nan"), None)]
)
def test_a_due_time_that_cannot_be_is_refused(delay: float | None, at: datetime | None) -> None:
    with pytest.raises(InvalidData):
        due_at(delay, at)


def test_without_a_broker_the_outcome_is_unknown_and_the_error_names_the_job() -> None:
    job_id = new_job_id(lane_of_queue("default", 4), 1)
    began = time.monotonic()
    with client() as unheard, pytest.raises(NotAcknowledged, match=job_id) as told:
        unheard.enqueue("a.b", options=JobOptions(job_id=job_id))
    assert told.value.job_ids == told.value.unacknowledged == (job_id,)
    assert isinstance(told.value, EnqueueError)
    assert time.monotonic() - began < 10


def test_an_error_of_many_names_all_jobs_in_their_order() -> None:
    ids = [new_job_id(lane_of_queue("default", 4), n) for n in range(5)]
    with client() as unheard, pytest.raises(NotAcknowledged, match="5 of 5") as told:
        unheard.enqueue_many("a.b", [Call(job_id=one) for one in ids])
    assert list(told.value.job_ids) == ids


def test_what_is_wrong_is_said_before_anything_is_sent() -> None:
    with client() as unheard, pytest.raises(InvalidData, match="finite"):
        unheard.enqueue_many("a.b", [((1,), {}), ((float("nan"),), {})])


def test_a_filter_can_refuse_a_job() -> None:
    with client(filters=[Refusing()]) as filtered:
        with pytest.raises(CreationCancelled, match=r"images\.shrink"):
            filtered.enqueue(shrink, "private")
        assert filtered.enqueue_many(shrink, [(("private",), {})] * 3) == []
        with pytest.raises(NotAcknowledged):
            filtered.enqueue(shrink, "public")


def test_many_jobs_cannot_share_a_key() -> None:
    with client() as unheard, pytest.raises(InvalidData, match="Call"):
        unheard.enqueue_many("a.b", [()], JobOptions(idempotency_key="k"))
    with client() as unheard, pytest.raises(InvalidData, match="Call"):
        unheard.enqueue_many("a.b", [()], JobOptions(job_id=""))


def test_a_closed_client_says_so_and_may_be_closed_again() -> None:
    closed = client()
    closed.close()
    closed.close()
    with pytest.raises(JoblogError, match="closed"):
        closed.enqueue("a.b")


def test_a_client_does_not_survive_a_fork() -> None:
    with client() as parent:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                parent.enqueue("a.b")
            except JoblogError as exc:
                code = 0 if "fork" in str(exc) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_client_has_a_proper_name() -> None:
    with pytest.raises(SettingsError, match="name"):
        client(name="no spaces")


def test_a_client_of_the_settings_has_what_they_say() -> None:
    settings = Settings(
        topic_prefix="t.",
        client={"name": "shop", "timeout_s": 0.5},  # type: ignore[arg-type]
        kafka={"bootstrap_servers": "127.0.0.1:1"},  # type: ignore[arg-type]
    )
    with Client.from_settings(settings) as made:
        assert made.name == "shop"
        with pytest.raises(NotAcknowledged):
            made.enqueue("a.b")


JOB = new_job_id(lane_of_queue("default", 4), 1)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"on": ContinueOn.ENDED}, "on has no effect without a parent: write parent=JOB_ID, on=ended"),
        ({"queue": "Images"}, "'Images' is not a queue name: write images"),
        ({"queue": ""}, "'' is not a queue name: it must match"),
        ({"queue": "a b"}, "'a b' is not a queue name: it must match"),
        ({"retry": 3}, "write retry=RetryPolicy(attempts=3)"),
        ({"traceparent": "x" * 2_000}, "W3C form"),
        ({"traceparent": TRACE.upper()}, "W3C form"),
    ],
    ids=str,
)
def test_options_without_effect_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidData, match=re.escape(told)):
        JobOptions(**options)


def test_a_parent_is_to_succeed_by_default() -> None:
    assert JobOptions(parent=JOB) == JobOptions(parent=JOB, on=ContinueOn.SUCCEEDED)
    assert JobOptions().on is None
    assert JobOptions(traceparent=TRACE, retry=RetryPolicy.none(), queue="a-b_1").traceparent == TRACE


def test_options_that_a_method_sets_itself_are_refused() -> None:
    with client() as unheard:
        with pytest.raises(InvalidData, match=re.escape("options.run_at has no effect in schedule(): write at=")):
            unheard.schedule("a.b", delay=1, options=JobOptions(run_at=datetime.now(UTC)))
        with pytest.raises(InvalidData, match=re.escape("options.parent has no effect in continue_with()")):
            unheard.continue_with(JOB, "a.b", options=JobOptions(parent=JOB))
        with pytest.raises(InvalidData, match="give a delay or a time: delay=60"):
            unheard.schedule("a.b")
        with pytest.raises(InvalidData, match="not both"):
            unheard.reschedule(JOB, delay=1, at=datetime.now(UTC))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), timedelta(0)])
def test_a_time_limit_is_a_positive_number(timeout: float) -> None:
    with client() as unheard, pytest.raises(InvalidData, match="timeout_s"):
        unheard.enqueue("a.b", options=JobOptions(timeout=timeout))


def test_a_job_id_and_a_key_must_name_the_same_job() -> None:
    by_key = hashed_job_id(lane_of_queue("default", 4), "default", "k")
    with client() as unheard:
        with pytest.raises(InvalidData, match=f"which is {by_key}: leave one of them out"):
            unheard.enqueue("a.b", options=JobOptions(job_id=JOB, idempotency_key="k"))
        with pytest.raises(InvalidData, match="leave one of them out"):
            unheard.enqueue_many("a.b", [Call(idempotency_key="k", job_id=JOB)])
        # As a call is repeated whose outcome is unknown.
        with pytest.raises(NotAcknowledged, match=by_key):
            unheard.enqueue("a.b", options=JobOptions(job_id=by_key, idempotency_key="k"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": ""}, "its name ''"),
        ({"lanes": 0}, "lanes must be 1 to 4096, not 0"),
        ({"lanes": 5_000}, "lanes must be 1 to 4096"),
        ({"timeout_s": 0}, "timeout_s must be above 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be above 0"),
        ({"timeout_s": float("inf")}, "timeout_s must be above 0"),
        ({"args_bytes_max": 1}, "args_bytes_max must be 2 to"),
        ({"args_bytes_max": 10_000_000}, "args_bytes_max must be 2 to"),
        ({"shards": {"hot": 5}}, "shards: hot has 5; it can have 1 to 4 (lanes)"),
        ({"shards_before": {"hot": 5}}, "shards_before: hot has 5; it can have 1 to 4 (lanes)"),
        ({"shards": {"hot": 0}}, "shards: hot has 0"),
        ({"shards": {"Hot": 1}}, "shards: 'Hot' is not a queue name: write hot"),
    ],
    ids=str,
)
def test_a_client_refuses_what_it_cannot_work_with(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        Client(NOBODY, TopicNames(), **{"lanes": 4, **arguments})
