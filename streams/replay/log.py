"""Reads lanes of the topic `events`, one after the other, while the system runs."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Final

from joblog.streams.kafka.answers import answered
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.scan import Range, TopicReader
from joblog.streams.replay.stored import StoredBatch, StoredEvent, stored_fact

#: Called with how many records were read since the last call.
Progress = Callable[[int], object]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class EventReader:
    """A reader of `events`; each lane is read from an instant to the end that it has when the reading begins.

    Raises TopicsError if the topic is not there, or has another number of lanes, and BrokersAway.
    """

    def __init__(self, config: KafkaConfig, topic: str, lanes: int, *, client_id: str) -> None:
        self.topic, self.lanes = topic, lanes
        self._reader = TopicReader(config, topic, client_id)
        self._config = config
        #: Records that are no event which an elector wrote.
        self.unreadable = 0
        try:
            with self._answered():
                self._reader.check_partitions(lanes)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._reader.close()

    def cluster(self) -> str | None:
        """The id of the cluster, if its brokers tell it."""
        with self._answered():
            return self._reader.cluster()

    def bounds(self, lane: int, from_ms: int | None = None) -> tuple[int, int]:
        """The first offset from an instant on, by the broker's clock, and the end."""
        with self._answered():
            bound = self._reader.bounds([lane])[lane]
            if from_ms is None:
                return bound.start, bound.stop
            before = _EPOCH + timedelta(milliseconds=from_ms - 1)
            return self._reader.offsets_at([lane], before)[lane], bound.stop

    def events(
        self, lane: int, start: int, end: int, progress: Progress = lambda _count: None
    ) -> Iterator[StoredEvent]:
        """The events of the lane's jobs between two offsets; raises as `values` does."""
        facts = self.facts(lane, start, end, progress)
        return (found for found in facts if isinstance(found, StoredEvent))

    def facts(
        self, lane: int, start: int, end: int, progress: Progress = lambda _count: None
    ) -> Iterator[StoredEvent | StoredBatch]:
        """Those of the lane's jobs and batches; raises as `values` does."""
        for value in self.values(lane, start, end, progress):
            try:
                found = stored_fact(value)
            except ValueError:
                self.unreadable += 1
            else:
                if found is not None:
                    yield found

    def values(self, lane: int, start: int, end: int, progress: Progress = lambda _count: None) -> Iterator[bytes]:
        """The records between two offsets; raises BrokersAway when the log stops answering, KafkaException."""
        at = start
        with self._answered():
            for messages in self._reader.read({lane: Range(start, end)}, lambda: progress(0)):
                yield from (message.value() or b"" for message in messages)
                before, at = at, (messages[-1].offset() or 0) + 1
                progress(at - before)
        progress(max(end - at, 0))

    def _answered(self) -> AbstractContextManager[None]:
        return answered(self._config)
