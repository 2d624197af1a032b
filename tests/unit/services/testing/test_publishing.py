"""Joblog in memory: events of other services, and what triggers make of them."""

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from joblog.services import IncomingEvent, Job, JobOptions, State, Unique, task, trigger
from joblog.services.testing import EventParked, InMemoryJoblog
from joblog.streams.contract.ids import hashed_job_id, lane_of_queue
from joblog.streams.errors import JoblogError, SettingsError

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@task("shrink", queue="images")
def shrink(path: str, width: int = 640) -> str:
    return f"{path}@{width}"


@trigger(topic="uploads", type="image.uploaded")
def uploaded(event: IncomingEvent) -> Job:
    return Job(shrink, event.data["path"], width=320, options=JobOptions(priority=10, queue="images"))


@trigger(topic="orders")
async def ordered(event: IncomingEvent) -> list[Job]:
    await asyncio.sleep(0)
    return [Job("bill", event.data["order"]), Job("pack", event.data["order"])]


FAILURES: list[int] = []


@trigger(topic="flaky")
def flaky(event: IncomingEvent) -> Job | None:
    if len(FAILURES) < event.data:
        FAILURES.append(event.data)
        raise ConnectionError("not yet")
    return Job(shrink, "late.png")


@pytest.fixture
def joblog() -> Iterator[InMemoryJoblog]:
    FAILURES.clear()
    with InMemoryJoblog(shrink, uploaded, ordered, flaky, now=NOW) as made:
        yield made


def test_an_event_becomes_the_job_that_its_trigger_returns(joblog: InMemoryJoblog) -> None:
    [job] = joblog.publish("uploads", {"path": "a.png"}, type="image.uploaded", id="u-1", source="/shop")
    assert (job.state, job.task, job.args, job.priority) == (State.ENQUEUED, "shrink", ("a.png",), 10)
    name = f"{__name__}.uploaded"
    assert job.id == hashed_job_id(lane_of_queue("images", 4), "trigger", name, "/shop", "u-1", "0")
    [ran] = joblog.run_all()
    assert ran.result == "a.png@320"


def test_the_same_event_is_the_same_job(joblog: InMemoryJoblog) -> None:
    twice = [joblog.publish("uploads", {"path": "a.png"}, type="image.uploaded", id="u-1") for _ in range(2)]
    assert twice[0][0].id == twice[1][0].id
    assert [one.code for one in joblog.rejected] == ["duplicate"]
    [other] = joblog.publish("uploads", {"path": "a.png"}, type="image.uploaded")
    assert other.id != twice[0][0].id, "an event without an id is another one each time"
    joblog.assert_enqueued(shrink, count=2)


def test_events_come_as_records_as_they_are_on_kafka(joblog: InMemoryJoblog) -> None:
    assert joblog.publish("uploads", {"path": "a.png"}) == [], "plain JSON has no type, and the trigger wants one"
    structured = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "image.uploaded",
        "data": {"path": "b.png"},
    }
    binary = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"image.uploaded")]
    [one] = joblog.publish("uploads", structured)
    [same] = joblog.publish("uploads", b'{"path": "b.png"}', headers=binary)
    assert one.id == same.id
    assert joblog.publish("uploads", {"path": "c"}, type="image.deleted") == []
    both = joblog.publish("orders", {"order": 4711})
    assert [(job.task, job.args) for job in both] == [("bill", (4711,)), ("pack", (4711,))]


def test_a_job_that_is_rejected_is_not_there(joblog: InMemoryJoblog) -> None:
    @trigger(topic="index")
    def indexed(_event: IncomingEvent) -> Job:
        return Job("index", options=JobOptions(unique=Unique(key="index")))

    joblog.register(indexed)
    assert [len(joblog.publish("index", n)) for n in range(2)] == [1, 0]
    assert [one.code for one in joblog.rejected] == ["not_unique"]


def test_a_function_that_raises_is_called_again_and_time_passes(joblog: InMemoryJoblog) -> None:
    [job] = joblog.publish("flaky", 3)
    assert job.task == "shrink"
    assert timedelta(seconds=1 + 2 + 4) <= joblog.now - NOW < timedelta(seconds=8)
    assert joblog.parked == []


def test_an_event_that_cannot_become_a_job_is_parked_and_messages_say_so(joblog: InMemoryJoblog) -> None:
    assert joblog.publish("flaky", 100) == []
    assert joblog.publish("uploads", b"{") == []
    raised, no_event = joblog.parked
    assert (raised.topic, raised.offset, raised.code) == ("flaky", 0, "function_raised")
    assert no_event.value == b"{"
    with pytest.raises(
        AssertionError, match=r"(?s)jobs:\n  none\ndead letters:\n  flaky/0: function_raised.*not yet"
    ):
        joblog.assert_enqueued(shrink)
    with pytest.raises(EventParked, match=r"uploads/1: function_raised, .*KeyError: 'path'"):
        joblog.publish("uploads", {}, type="image.uploaded", raises=True)


def test_what_nobody_reads_is_not_passed_over_in_silence(joblog: InMemoryJoblog) -> None:
    with pytest.raises(JoblogError, match="no trigger reads upload: there are triggers on flaky, orders, uploads"):
        joblog.publish("upload", {})
    with InMemoryJoblog() as empty, pytest.raises(JoblogError, match=r"there are no triggers; give the module"):
        empty.publish("uploads", {})
    with pytest.raises(JoblogError, match="id without a type"):
        joblog.publish("uploads", {}, id="1")
    with pytest.raises(JoblogError, match="type beside bytes"):
        joblog.publish("uploads", b"{}", type="image.uploaded")


def test_triggers_of_a_module_are_known_and_two_of_one_name_are_refused(joblog: InMemoryJoblog) -> None:
    joblog.register(sys.modules[__name__])

    def made() -> object:
        @trigger(topic="uploads")
        def again(_event: IncomingEvent) -> None: ...

        return again

    joblog.register(made())  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="two triggers have the name"):
        joblog.register(made())  # type: ignore[arg-type]


async def _in_a_loop(joblog: InMemoryJoblog) -> list[str]:
    with pytest.raises(JoblogError, match=r"await asyncio\.to_thread\(joblog\.publish"):
        joblog.publish("orders", {"order": 1})
    return [job.task for job in await asyncio.to_thread(joblog.publish, "orders", {"order": 1})]


def test_in_a_loop_the_error_says_what_to_write(joblog: InMemoryJoblog) -> None:
    assert asyncio.run(_in_a_loop(joblog)) == ["bill", "pack"]
