"""Whether the last jobs of definitions have ended, read from `events`; only for those whose overlap is not `allow`.

A plain consumer reads the lanes of the jobs that are asked for, from when the oldest of these was created, and looks
at the keys of records only; Faust would be too slow for all events of a busy installation.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.timestamps import EPOCH, time_ms
from joblog.streams.kafka.clients import KafkaConfig, reader
from joblog.streams.recurring.ends import Ends

log = logging.getLogger(__name__)

#: How far the clocks of processes and brokers may be apart.
_SKEW: Final = timedelta(seconds=60)
_POLL_S: Final = 0.1
_RETRY_S: Final = 1.0
_ANSWER_S: Final = 10.0


@dataclass(slots=True)
class _Lane:
    """What is read of one lane: from when, and whether its end was reached since."""

    since: datetime
    ends: Ends = field(default_factory=Ends)
    is_placed: bool = False
    at_end: bool = False


class Endings:
    """Answers for the jobs that are watched; a thread reads while there are any."""

    def __init__(self, config: KafkaConfig, topic: str, client_id: str) -> None:
        self._config = config
        self._topic = topic
        self._client_id = client_id
        self._lock = threading.Lock()
        self._lanes: dict[int, _Lane] = {}
        self._changed = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, jobs: Mapping[str, datetime]) -> None:
        """Watch these jobs, with when each was created, and no others."""
        with self._lock:
            wanted = {lane_of_job(job_id) for job_id in jobs}
            for lane in set(self._lanes) - wanted:
                del self._lanes[lane]
                self._changed = True
            for state in self._lanes.values():
                state.ends.keep(jobs)
            for job_id, created in jobs.items():
                self._add(job_id, max(created, EPOCH + _SKEW) - _SKEW)
        if jobs and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="endings", daemon=True)
            self._thread.start()

    def is_running(self, job_id: str) -> bool | None:
        """Whether a watched job has not ended; None while that is not known."""
        with self._lock:
            lane = self._lanes.get(lane_of_job(job_id))
            if lane is None or job_id not in lane.ends.jobs:
                return None
            if lane.ends.jobs[job_id]:
                return False
            return True if lane.at_end else None

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_ANSWER_S)

    def _add(self, job_id: str, since: datetime) -> None:
        number = lane_of_job(job_id)
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._lanes[number] = _Lane(since)
            self._changed = True
        if job_id in lane.ends.jobs:
            return
        lane.ends.watch(job_id)
        if since < lane.since:
            lane.since, lane.is_placed, lane.at_end = since, False, False
            self._changed = True

    def _run(self) -> None:
        while not self._stop.is_set():
            consumer = reader(self._config, self._client_id)
            try:
                self._read(consumer)
            except KafkaException as exc:
                log.warning("recurring.events_unread", extra={"reason": exc.args[0].str()})
                self._stop.wait(_RETRY_S)
            finally:
                consumer.close()
            with self._lock:
                for lane in self._lanes.values():
                    lane.is_placed = lane.at_end = False
                self._changed = True

    def _read(self, consumer: Consumer) -> None:
        while not self._stop.is_set():
            if self._changed:
                self._place(consumer)
            if not self._lanes:
                self._stop.wait(_POLL_S)
                continue
            for message in consumer.consume(10_000, _POLL_S):
                self._take(message)

    def _place(self, consumer: Consumer) -> None:
        """Read each lane from its instant; those that are read already go on where they are."""
        with self._lock:
            self._changed = False
            lanes = {number: (lane.since, lane.is_placed) for number, lane in self._lanes.items()}
        new = [TopicPartition(self._topic, n, time_ms(since)) for n, (since, placed) in lanes.items() if not placed]
        going = consumer.position([TopicPartition(self._topic, n) for n, (_, placed) in lanes.items() if placed])
        found = consumer.offsets_for_times(new, timeout=_ANSWER_S) if new else []
        consumer.assign(going + found)
        with self._lock:
            for place in found:
                if place.partition in self._lanes:
                    self._lanes[place.partition].is_placed = True

    def _take(self, message: Message) -> None:
        error = message.error()
        number: Any = message.partition()
        with self._lock:
            lane = self._lanes.get(number)
            if lane is None:
                return
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    lane.at_end = True
                elif not error.retriable():
                    raise KafkaException(error)
                return
            key, value = message.key(), message.value()
            lane.ends.take((key or b"").decode(errors="replace"), value or b"")
