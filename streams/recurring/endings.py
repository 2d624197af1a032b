"""Whether the last jobs of definitions have ended, read from `events`; only for those whose overlap is not `allow`.

A plain consumer reads the lanes of the jobs that are asked for, from when the oldest of these was created, and looks
at the keys of records only; Faust would be too slow for all events of a busy installation.

A job may have ended before anybody asks for it. So whoever is about to create one says so (`expect`): nothing of it
can have been read then. For any other job its lane is read again, from the job's creation on; or, as that may be long
ago, from when the job is known to have ended.
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
from joblog.streams.kafka.last_records import watermarks
from joblog.streams.recurring.ends import Ends, Watched

log = logging.getLogger(__name__)

#: How far the clocks of processes and brokers may be apart.
_SKEW: Final = timedelta(seconds=60)
_POLL_S: Final = 0.1
_RETRY_S: Final = 1.0
_ANSWER_S: Final = 10.0


@dataclass(slots=True)
class _Lane:
    """What is read of one lane.

    - since: by watched job, from when on events of it may be in the log.
    - seek: from when on it has to be read (again); None while it is read.
    - position: the next offset; None if nothing was read yet.
    - end: where the lane ended when it was sought last; at_end: whether all before that is read.
    """

    ends: Ends = field(default_factory=Ends)
    since: dict[str, datetime] = field(default_factory=dict)
    seek: datetime | None = None
    position: int | None = None
    end: int = 0
    at_end: bool = False

    def read_from(self, instant: datetime) -> None:
        """Have it read from there, and believe nothing until that is done."""
        self.seek = instant if self.seek is None else min(self.seek, instant)
        self.at_end = False

    def keep(self, jobs: Mapping[str, Watched]) -> None:
        """Watch no others than these."""
        self.ends.keep(jobs)
        self.since = {job_id: since for job_id, since in self.since.items() if job_id in jobs}


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

    def expect(self, jobs: Mapping[str, datetime]) -> None:
        """Watch these jobs, too, until the next call of `watch`; they are created after this call.

        With each goes the instant with which `watch` will name it, or an earlier one.
        """
        with self._lock:
            for job_id, since in jobs.items():
                self._add(job_id, Watched(since), is_expected=True)
        self._begin()

    def watch(self, jobs: Mapping[str, Watched]) -> None:
        """Watch these jobs and no others."""
        with self._lock:
            wanted = {lane_of_job(job_id) for job_id in jobs}
            for lane in set(self._lanes) - wanted:
                del self._lanes[lane]
                self._changed = True
            for state in self._lanes.values():
                state.keep(jobs)
            for job_id, known in jobs.items():
                self._add(job_id, known)
        self._begin()

    def is_running(self, job_id: str) -> bool | None:
        """Whether a watched job has not ended; None while that is not known."""
        with self._lock:
            lane = self._watching(job_id)
            # Before the end of its lane, one that has ended may turn out to be requeued.
            return not lane.ends.jobs[job_id] if lane is not None and lane.at_end else None

    def has_come(self, job_id: str) -> bool | None:
        """Whether there are events of a watched job; None while that is not known."""
        with self._lock:
            lane = self._watching(job_id)
            if lane is None:
                return None
            return True if job_id in lane.ends.seen else False if lane.at_end else None

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_ANSWER_S)

    def _watching(self, job_id: str) -> _Lane | None:
        lane = self._lanes.get(lane_of_job(job_id))
        return lane if lane is not None and job_id in lane.ends.jobs else None

    def _begin(self) -> None:
        if self._lanes and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="endings", daemon=True)
            self._thread.start()

    def _add(self, job_id: str, job: Watched, *, is_expected: bool = False) -> None:
        number = lane_of_job(job_id)
        is_new_lane = number not in self._lanes
        lane = self._lanes.setdefault(number, _Lane())
        known = lane.since.get(job_id)
        # A job that was expected may turn out to be older: by the broker's clock, which counts.
        if known is not None and known <= job.at:
            return
        since = lane.since[job_id] = max(job.at, EPOCH + _SKEW) - _SKEW
        lane.ends.watch(job_id, has_ended=job.has_ended)
        if known is not None or is_new_lane or not is_expected:
            lane.read_from(since)
            self._changed = True

    def _run(self) -> None:
        while not self._stop.is_set():
            consumer = reader(self._config, self._client_id)
            try:
                self._read(consumer)
            except KafkaException as exc:
                log.warning("recurring.events_unread", extra={"reason": exc.args[0].str()})
            except Exception:  # without this thread, no end would ever be seen again
                log.exception("recurring.events_unread")
            finally:
                consumer.close()
            self._stop.wait(_RETRY_S)
            with self._lock:
                for lane in self._lanes.values():
                    lane.position = None
                    for since in lane.since.values():
                        lane.read_from(since)
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
        """Read each lane that has to be read again from its instant, or from where it is if that is earlier."""
        with self._lock:
            self._changed = False
            sought = {number: lane.seek for number, lane in self._lanes.items() if lane.seek is not None}
        ends = {number: watermarks(consumer, TopicPartition(self._topic, number))[1] for number in sought}
        times = [TopicPartition(self._topic, number, time_ms(since)) for number, since in sought.items()]
        found = consumer.offsets_for_times(times, timeout=_ANSWER_S) if times else []
        if errors := [one.error for one in found if one.error is not None]:
            raise KafkaException(errors[0])
        # Where nothing is so late, it begins at the end.
        starts = {one.partition: one.offset if one.offset >= 0 else ends[one.partition] for one in found}
        with self._lock:
            for number, lane in self._lanes.items():
                if lane.seek is not None and lane.seek == sought.get(number):
                    lane.seek, lane.end = None, ends[number]
                    start = starts[number]
                    lane.position = start if lane.position is None else min(start, lane.position)
            places = {number: lane.position for number, lane in self._lanes.items()}
        consumer.assign([TopicPartition(self._topic, n, at) for n, at in places.items() if at is not None])

    def _take(self, message: Message) -> None:
        error = message.error()
        number: Any = message.partition()
        with self._lock:
            lane = self._lanes.get(number)
            if lane is None or lane.position is None:
                return
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                if not error.retriable():
                    raise KafkaException(error)
                return
            offset = message.offset() or 0
            if error is None:
                key, value = message.key(), message.value()
                lane.ends.take((key or b"").decode(errors="replace"), value or b"")
                lane.position = offset + 1
            # On a busy lane, the client may never come to where it ends now.
            if lane.seek is None and (error is not None or offset + 1 >= lane.end):
                lane.at_end = True
