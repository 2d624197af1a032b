"""Whether jobs have ended, read from lanes as no broker of a test has them."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.recurring import endings as module
from joblog.streams.recurring.endings import Endings
from joblog.streams.recurring.ends import Watched

JOB = "01a31bcf-c400-8001-8000-00000000002a"
OTHER = "01a31bcf-c400-8001-8000-00000000002b"
END = 20


class Event:
    """An event of a job, at an offset of its lane."""

    def __init__(self, job_id: str, offset: int) -> None:
        self._job_id, self._offset = job_id, offset

    def error(self) -> None:
        return None

    def partition(self) -> int:
        return lane_of_job(self._job_id)

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return self._job_id.encode()

    def value(self) -> bytes:
        return b'{"type":"job.processing","data":{}}'


class Busy:
    """A consumer of a lane in which something comes all the time, so that it never tells of the lane's end."""

    def __init__(self) -> None:
        self._offset = 0

    def get_watermark_offsets(self, _place: TopicPartition, **_options: Any) -> tuple[int, int]:
        return 0, END

    def offsets_for_times(self, times: list[TopicPartition], **_options: Any) -> list[TopicPartition]:
        return [TopicPartition(one.topic, one.partition, 0) for one in times]

    def assign(self, places: list[TopicPartition]) -> None:
        self._offset = places[0].offset if places else 0

    def consume(self, _count: int, _timeout_s: float) -> list[Event]:
        time.sleep(0.001)  # the next one comes
        self._offset += 1
        return [Event(OTHER if self._offset > 1 else JOB, self._offset - 1)]

    def close(self) -> None:
        pass


@pytest.fixture
def endings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endings]:
    monkeypatch.setattr(module, "reader", lambda *_: Busy())
    made = Endings(KafkaConfig("127.0.0.1:1"), "t.events", "t")
    yield made
    made.close()


def test_a_lane_in_which_events_come_all_the_time_is_known(endings: Endings, wait_until: Callable[..., Any]) -> None:
    endings.watch({JOB: Watched(datetime.now(UTC))})
    wait_until(lambda: endings.is_running(JOB), 10, "what is known of the lane")
