"""How far a lane was read stands in its own records; the group's offsets tell operators the lag, and no more."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from joblog.streams.kafka import clients
from joblog.streams.kafka.group_offsets import committed_offsets

from tests.support.electors import Electors, Log

pytestmark = pytest.mark.broker


def committed(log: Log) -> dict[tuple[str, int], int]:
    """The group's offsets."""
    topics = (log.names.commands, log.names.reports)
    places = [TopicPartition(topic, lane) for topic in topics for lane in range(log.lanes)]
    found = committed_offsets(log.kafka, f"{log.names.prefix}electors", places, 10)
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


def test_nothing_is_decided_twice_when_the_groups_offsets_were_deleted(
    start: Electors, log: Log, wait_until: Any
) -> None:
    first = start("a")
    jobs = [log.create(lane) for lane in log.queues for _ in range(10)]
    log.command("job.delete", {"job_id": jobs[0]}, 0)
    log.producer.flush()
    wait_until(lambda: len(log.histories()) == len(jobs) and "deleted" in log.of(jobs[0]), 90, "the jobs")
    first.stop()
    admin = clients.admin(log.kafka)

    def delete() -> bool:
        (deletion,) = admin.delete_consumer_groups([f"{log.names.prefix}electors"]).values()
        try:
            deletion.result(20)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NON_EMPTY_GROUP:
                raise
            return False
        return True

    wait_until(delete, 60, "the session of the elector that stopped to end")
    assert not committed(log)
    start("a")
    jobs += [log.create(lane) for lane in log.queues]
    log.producer.flush()
    wait_until(lambda: len(log.histories()) == len(jobs), 90, "the next jobs")
    assert log.histories() == {job: ["enqueued"] for job in jobs} | {jobs[0]: ["enqueued", "deleted"]}
    assert not log.rejections()


def test_the_groups_offsets_tell_how_far_each_lane_was_read(start: Electors, log: Log, wait_until: Any) -> None:
    start("a")
    for lane in log.queues:
        log.create(lane)
    log.announce()
    log.producer.flush()
    wait_until(lambda: len(log.runs()) == log.lanes, 90, "the jobs")
    positions = {
        (topic, lane): offset
        for lane, record in log.lane_records().items()
        for topic, offset in ((log.names.commands, record.commands), (log.names.reports, record.reports))
    }
    assert committed(log) == positions
