"""What a lane cannot go on with sets that lane aside; the others go on, and operators can repair it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaException, TopicPartition
from joblog.streams.contract import wire
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.elector import LOOK_ASIDE_S, Elector
from joblog.streams.elector.lane_records import Action, AsideCode
from joblog.streams.elector.lanes_status import OrderRefused, give_order, lane_status, lane_statuses
from joblog.streams.elector.rebuild import OffsetsUnknown, rebuild_lane
from joblog.streams.elector.writer import Writer
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.output import LaneOutput

from tests.support.electors import Electors, Log

pytestmark = pytest.mark.broker

WaitUntil = Callable[[Callable[[], Any], float, str], Any]


def is_aside(log: Log, lane: int, code: AsideCode) -> Callable[[], bool]:
    def check() -> bool:
        aside = lane_status(log.kafka, log.names, lane).aside
        return aside is not None and aside.code is code

    return check


def works(log: Log, lane: int, wait_until: WaitUntil) -> None:
    """A new job of this lane is decided."""
    job = log.create(lane)
    log.producer.flush()
    wait_until(lambda: log.of(job)[:1] == ["enqueued"], 20, f"lane {lane} to decide")


def stands_still(log: Log, lane: int, other: int, wait_until: WaitUntil) -> str:
    """A job of this lane is not decided, while many of another lane are; returns its id."""
    job = log.create(lane)
    log.producer.flush()
    for _ in range(5):
        works(log, other, wait_until)
    assert log.of(job) == []
    return job


def test_a_lane_whose_next_record_is_gone_is_set_aside_until_an_operator_lets_it_skip(
    start: Electors, log: Log, wait_until: WaitUntil
) -> None:
    first = start("a")
    log.announce(slots=1)
    job = log.create(0)
    (run,) = wait_until(log.runs, 30, "an assignment")
    works(log, 1, wait_until)
    first.stop()
    log.succeed(run)  # read by nobody, and gone before anybody is back
    end = log.reader.get_watermark_offsets(TopicPartition(log.names.reports, 0), timeout=10)[1]
    admin = clients.admin(log.kafka)
    for future in admin.delete_records([TopicPartition(log.names.reports, 0, end)]).values():
        future.result(30)

    second = start("a")
    wait_until(is_aside(log, 0, AsideCode.LOG_LOST), 30, "the lane to be set aside")
    works(log, 1, wait_until)
    late = stands_still(log, 0, 1, wait_until)
    status = lane_status(log.kafka, log.names, 0)
    assert status.aside is not None
    assert "offset" in status.aside.reason
    assert "joblog lanes skip 0" in status.remedy
    assert lane_status(log.kafka, log.names, 1).aside is None
    with pytest.raises(OrderRefused, match="lane 1 is not set aside"):
        give_order(log.kafka, log.names, 1, Action.SKIP)

    give_order(log.kafka, log.names, 0, Action.RELOAD)  # which does not help
    wait_until(lambda: lane_status(log.kafka, log.names, 0).order is None, 20, "the order to be followed")
    assert is_aside(log, 0, AsideCode.LOG_LOST)()
    second.kill()
    start("a")  # nor does a restart
    works(log, 1, wait_until)
    assert is_aside(log, 0, AsideCode.LOG_LOST)()

    give_order(log.kafka, log.names, 0, Action.SKIP)
    wait_until(lambda: lane_status(log.kafka, log.names, 0).aside is None, 20, "the lane to go on")
    wait_until(lambda: log.of(late)[:1] == ["enqueued"], 20, "the job that waited")

    # The report of the first job's end was lost: it runs again, though its worker still renews.
    def again() -> bool:
        log.announce(slots=10)
        return log.of(job)[-3:] == ["processing", "enqueued", "processing"]

    wait_until(again, 40, "the job to run again")


def test_a_record_of_state_that_cannot_be_read_sets_only_its_lane_aside(
    start: Electors, log: Log, wait_until: WaitUntil
) -> None:
    first = start("a")
    works(log, 0, wait_until)
    works(log, 1, wait_until)
    first.stop()
    for key, value in ((new_job_id(0, 5), b"\xc1 garbage"), (b"\xff\xfe", b"\x01"), ("ended:7", b"\xc0")):
        log.producer.produce(log.names.state, value, key, 0)
    log.producer.flush()
    start("a")
    wait_until(is_aside(log, 0, AsideCode.STATE_UNREADABLE), 30, "the lane to be set aside")
    late = stands_still(log, 0, 1, wait_until)
    give_order(log.kafka, log.names, 0, Action.SKIP)
    wait_until(lambda: log.of(late)[:1] == ["enqueued"], 20, "the lane to go on")
    dead = wait_until(lambda: len(log.poll().deadletters) == 3 and log.deadletters, 20, "the dropped records")
    assert {value for value, _ in dead} == {b"\xc1 garbage", b"\x01", b"\xc0"}
    start("a")  # another start finds nothing that it cannot read
    works(log, 0, wait_until)
    assert lane_status(log.kafka, log.names, 0).aside is None


def make_anew(log: Log) -> None:
    """Somebody deletes the topic `state`, and it is created again, empty."""
    admin = clients.admin(log.kafka)
    admin.delete_topics([log.names.state], operation_timeout=30)[log.names.state].result(30)
    deadline = time.monotonic() + 30
    while log.names.state in admin.list_topics(timeout=10).topics:  # it is still being deleted
        assert time.monotonic() < deadline
        time.sleep(0.1)
    create_topics(log.kafka, log.names, log.lanes)


def test_a_state_topic_that_was_made_anew_is_noticed_and_rebuilt_from_the_events(
    start: Electors, log: Log, wait_until: WaitUntil
) -> None:
    first = start("a")
    log.announce(slots=2)
    ended = log.create(0)
    (run,) = wait_until(log.runs, 30, "an assignment")
    log.succeed(run)
    wait_until(lambda: log.of(ended)[-1] == "succeeded", 20, "success")
    waiting = [log.create(0, priority=number) for number in range(4)]
    child = log.create(1, parent={"job_id": waiting[0]})
    log.producer.flush()
    wait_until(lambda: len(log.runs()) == 3 and log.of(child) == ["awaiting"], 20, "two more assignments")
    works(log, 1, wait_until)
    first.stop()
    make_anew(log)

    start("a")
    wait_until(lambda: all(is_aside(log, n, AsideCode.STATE_LOST)() for n in (0, 1)), 40, "both lanes aside")
    log.create(0, job_id=ended)
    log.create(0)
    log.producer.flush()
    dry = rebuild_lane(log.kafka, log.names, log.lanes, 0, remembered=100, dry_run=True)
    assert (dry.live, dry.remembered) == (4, 1)
    assert is_aside(log, 0, AsideCode.STATE_LOST)()
    for lane in (0, 1):
        rebuild_lane(log.kafka, log.names, log.lanes, lane, remembered=100)
    wait_until(lambda: log.rejections() == ["duplicate"], 20, "the ended job to be remembered")
    for run in log.runs()[1:3]:
        log.succeed(run)
    log.announce(slots=2)
    wait_until(lambda: len(log.runs()) >= 5, 20, "the next assignments")
    for run in log.runs()[3:]:
        log.succeed(run)
    wait_until(lambda: all(log.of(job)[-1] == "succeeded" for job in waiting), 20, "all of them")
    assert all(log.of(job) == ["enqueued", "processing", "succeeded"] for job in waiting)
    wait_until(lambda: log.of(child)[:2] == ["awaiting", "enqueued"], 20, "the continuation")
    with pytest.raises(OrderRefused, match="lane 0 works"):
        rebuild_lane(log.kafka, log.names, log.lanes, 0, remembered=100)


def test_a_rebuild_without_the_groups_offsets_asks_where_to_read_on(
    start: Electors, log: Log, wait_until: WaitUntil
) -> None:
    first = start("a")
    works(log, 0, wait_until)
    works(log, 1, wait_until)
    first.stop()
    make_anew(log)
    group, admin = f"{log.names.prefix}electors", clients.admin(log.kafka)

    def is_deleted() -> bool:
        try:
            admin.delete_consumer_groups([group])[group].result(10)
        except KafkaException:  # its last member is not gone yet
            return False
        return True

    wait_until(is_deleted, 30, "the group to be deleted")
    start("a")
    wait_until(is_aside(log, 0, AsideCode.STATE_LOST), 40, "the lane to be set aside: events are there")
    with pytest.raises(OffsetsUnknown, match="--commands-offset"):
        rebuild_lane(log.kafka, log.names, log.lanes, 0, remembered=100)
    done = rebuild_lane(log.kafka, log.names, log.lanes, 0, remembered=100, commands=1, reports=0)
    assert (done.live, done.commands, done.reports) == (1, 1, 0)
    works(log, 0, wait_until)


@pytest.mark.parametrize("hook", ["tick", "assign"])
def test_a_lane_that_fails_while_time_passes_or_slots_are_handed_out_is_set_aside_and_reloaded_when_asked(
    elector: Elector, log: Log, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    works(log, 0, wait_until)
    works(log, 1, wait_until)
    original = getattr(Lane, hook)

    def failing(self: Lane, *args: Any) -> None:
        if self.number == 0:
            raise ZeroDivisionError("nobody foresaw it")
        original(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Lane, hook, failing)
        log.create(0)
        log.producer.flush()
        wait_until(is_aside(log, 0, AsideCode.INTERNAL_ERROR), 30, "the lane to be set aside")
        late = stands_still(log, 0, 1, wait_until)
        aside = lane_status(log.kafka, log.names, 0).aside
        assert aside is not None
        assert "ZeroDivisionError: nobody foresaw it" in aside.reason
        assert "Traceback" in aside.details
        value = elector._meters.registry.get_sample_value
        assert value("joblog_lanes_aside", {"reason": "internal_error"}) == 1
        assert value("joblog_lanes") == 1
        with pytest.raises(OrderRefused, match="joblog lanes reload 0"):
            give_order(log.kafka, log.names, 0, Action.SKIP)
    give_order(log.kafka, log.names, 0, Action.RELOAD)
    wait_until(lambda: log.of(late)[:1] == ["enqueued"], 20, "the lane to go on")
    assert [one.condition for one in lane_statuses(log.kafka, log.names, log.lanes)] == ["owned", "owned"]
    assert value("joblog_lanes_aside", {"reason": "internal_error"}) == 0


def test_a_record_whose_events_cannot_be_written_is_found_and_parked(
    elector: Elector, log: Log, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = new_job_id(0, 3)
    original = Writer.output

    def output(self: Writer, lane: int, out: LaneOutput, now_ms: int) -> None:
        if any(key == poison and isinstance(data, wire.JobEvent) for key, _, _, data, _, _ in out.events):
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        original(self, lane, out, now_ms)

    monkeypatch.setattr(Writer, "output", output)
    jobs = [log.create(0) for _ in range(20)]
    log.create(0, job_id=poison)
    jobs += [log.create(lane) for lane in (0, 1) for _ in range(20)]
    log.producer.flush()
    wait_until(lambda: all(log.of(job)[:1] == ["enqueued"] for job in jobs), 40, "the other jobs")
    (dead,) = wait_until(lambda: log.poll().deadletters, 20, "the dead letter")
    assert dead[1]["joblog-reason-code"] == b"internal_error"
    assert log.rejections() == ["internal_error"]
    assert poison not in log.histories()


def test_a_lane_that_cannot_write_though_nothing_is_read_is_set_aside(
    elector: Elector, kafka: KafkaConfig, names: TopicNames, log: Log, wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run_at = "2026-01-01T00:00:00Z"
    job = log.create(0)
    log.producer.flush()
    wait_until(lambda: log.of(job)[:1] == ["enqueued"], 20, "the job")
    original = Writer.output

    def output(self: Writer, lane: int, out: LaneOutput, now_ms: int) -> None:
        if lane == 0:
            raise ValueError(f"not a time: {run_at}")
        original(self, lane, out, now_ms)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "output", output)
        late = log.create(0)
        log.producer.flush()
        wait_until(is_aside(log, 0, AsideCode.INTERNAL_ERROR), 30, "the lane to be set aside")
        stands_still(log, 0, 1, wait_until)
        began = time.monotonic()
        while time.monotonic() < began + 3 * LOOK_ASIDE_S:  # it is not tried again before somebody asks for it
            works(log, 1, wait_until)
            assert is_aside(log, 0, AsideCode.INTERNAL_ERROR)()
    give_order(kafka, names, 0, Action.RELOAD)
    wait_until(lambda: lane_status(kafka, names, 0).aside is None, 20, "the lane to go on")
    works(log, 0, wait_until)
    assert log.of(late) in ([], ["enqueued"])
