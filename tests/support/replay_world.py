"""A log, the tables and `state` of some jobs, as electors and a projector would have left them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Producer, TopicPartition
from joblog.projections.projector.decode import JobFact, read_event
from joblog.projections.replay.verification.verification import Report, Verification
from joblog.streams.contract import deadletters
from joblog.streams.contract.timestamps import parse_time_ms
from joblog.streams.elector.lane_records import LANE_KEY, LaneRecord, write_state
from joblog.streams.kafka import clients
from joblog.streams.lane.event_fold import EventFold
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import StateValue

from tests.support.projection_events import Story
from tests.support.projection_settings import Setting


class ReplayWorld:
    """What a test of replay writes, applies and verifies."""

    def __init__(self, setting: Setting, writer: Producer, directory: Path) -> None:
        self.setting, self.writer, self.directory = setting, writer, directory
        self.written = 0

    def write(self, values: Iterable[tuple[int, bytes]]) -> None:
        """Write events, with the keys that electors give them."""
        for lane, value in values:
            key = value.partition(b'"subject":"')[2].partition(b'"')[0]
            self.writer.produce(self.setting.names.events, value, key, lane)
            self.written += 1
        assert self.writer.flush(30) == 0

    def apply(self) -> None:
        """Let a projector apply all that was written."""
        projector = self.setting.projector()
        while self.setting.applied() < self.written:
            projector.step()
        projector.close()

    def cut(self, lane: int, offset: int) -> None:
        """Delete the events of a lane before this offset, as retention does."""
        admin = clients.admin(self.setting.kafka)
        [deleted] = admin.delete_records([TopicPartition(self.setting.names.events, lane, offset)]).values()
        assert deleted.result(30).low_watermark == offset

    def keep_state(self, stories: Iterable[Story]) -> None:
        """Write `state` as it follows from the events, and an end of each job that ended."""
        told = list(stories)
        for lane in range(self.setting.lanes):
            self.state(lane, LANE_KEY, LaneRecord("elector", 0, 0))
            for story in told:
                if story.lane == lane:
                    self.state(lane, story.id, None)
            for key, value in records_of(lane, told).items():
                self.state(lane, key, value)
        assert self.writer.flush(30) == 0

    def deadletter(self, command: str, code: str = "undecodable", role: str = "elector") -> None:
        """Write the dead letter of a record, `topic/partition@offset`."""
        topic, _, place = command.partition("/")
        partition, _, offset = place.partition("@")
        names = self.setting.names
        headers = deadletters.headers(code, "why", role, names.prefix + topic, int(partition), int(offset), [])
        self.writer.produce(names.deadletters, b"x", b"key", headers=headers)
        assert self.writer.flush(30) == 0

    def state(self, lane: int, key: str, value: Any) -> None:
        """Write one record of `state`."""
        self.writer.produce(self.setting.names.state, write_state(value), key, lane)

    def verify(self, name: str = "verify", **options: Any) -> Report:
        """Verify everything."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        at = self.setting
        given = {"dsn": at.dsn, "schema": at.schema, **options}
        return Verification(at.kafka, at.names, at.lanes, directory, **given).run()


def records_of(lane: int, stories: Iterable[Story]) -> Mapping[str, StateValue]:
    """What `state` of a lane must hold after these events."""
    fold = EventFold(lane, 10_000, 1)
    for story in stories:
        for value in story.values:
            fact = read_event(value, None, 0)
            assert isinstance(fact, JobFact)
            fold.apply(fact.job, fact.event, parse_time_ms(fact.at), None)
    return fold.state(0)


def record_of(story: Story, stories: Iterable[Story]) -> Job:
    """What `state` must hold of a job."""
    job = records_of(story.lane, stories)[story.id]
    assert isinstance(job, Job)
    return job
