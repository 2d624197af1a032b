"""Faust, as triggers use it: an app with at-least-once and no tables, no web server, no files and no producer in use.

Six things are not as Faust and aiokafka do them, besides those of kafka/faust_consumer.py:

- What is committed only is read. Faust does that in its exactly-once mode alone.
- Committed is how far each partition was handled (`App.handled`), as each is handled in order. Faust's own account
  waits for ever behind a gap of offsets that follows the first record of a partition, as an aborted transaction
  leaves one.
- Where a partition begins that has no records yet is committed, too: else a group that starts at the end would skip
  what comes while none of its processes runs.
- With an offset goes the id of its topic. A topic that was deleted and created again has another one, and what was
  committed for its namesake is not taken for a place in it: it is read from its beginning.
- A partition that ends before the place of the group, as when brokers lost the end of it, is read from its beginning
  again. Faust drops what comes there up to the former place, be it new.
- A group that has given out its partitions anew refuses commits of its former members. That is no failure: the next
  owner of a partition repeats what was not committed.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import faust
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.types import TP
from joblog.streams.kafka import faust_consumer
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.faust_credentials import credentials

log = logging.getLogger(__name__)
_faust_log: Final = logging.getLogger("faust.triggers")

SESSION_S: Final = 6.0
HEARTBEAT_S: Final = 2.0
COMMIT_S: Final = 1.0
#: Records come in answers that the broker holds back no longer than this.
_FETCH_MS: Final = 100
#: A member that reads nothing for so long leaves the group. It reads nothing while all its partitions wait for their
#: functions, which would only be called again by another process.
_IDLE_S: Final = 7 * 86_400.0


class App(faust.App):
    """A Faust app that reads as a member of a group.

    - topic_ids: of the topics that are read; empty for one that has none.
    - handled: the offset behind the last record that was handled, by partition; what is committed.
    - beginnings: where partitions begin for which nothing was committed; committed until something is handled.
    """

    def __init__(self, config: KafkaConfig, group: str, client_id: str, topic_ids: Mapping[str, str]) -> None:
        super().__init__(
            group,
            broker=[f"aiokafka://{server.strip()}" for server in config.bootstrap_servers.split(",")],
            broker_client_id=client_id,
            broker_credentials=credentials(config.options, "triggers"),
            broker_session_timeout=SESSION_S,
            broker_heartbeat_interval=HEARTBEAT_S,
            broker_request_timeout=30.0,
            broker_rebalance_timeout=30.0,
            broker_commit_interval=COMMIT_S,
            broker_max_poll_records=500,
            broker_max_poll_interval=_IDLE_S,
            # A position that the log no longer holds, and a group that has none: the oldest record (see starts.py).
            consumer_auto_offset_reset="earliest",
            processing_guarantee="at_least_once",
            # No standbys: aiokafka's own assignor, which gives a member only topics that it asks for.
            table_standby_replicas=0,
            stream_wait_empty=False,
            store="memory://",
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            autodiscover=False,
            datadir="/nonexistent",
        )
        self.topic_ids = topic_ids
        self.handled: dict[TP, int] = {}
        self.beginnings: dict[TP, int] = {}
        self.transport = _Transport(self.conf.broker_consumer, self, loop=self.loop)


class _ConsumerThread(faust_consumer.ConsumerThread):
    app: Any
    consumer: Any
    logger = _faust_log

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The next offset of each partition, as far as that is known.
        self._next: dict[TopicPartition, int] = {}

    def _create_worker_consumer(self, transport: Any) -> Any:
        made = super()._create_worker_consumer(transport)
        faust_consumer.replace(made, "_isolation_level", "read_committed")
        faust_consumer.replace(made, "_fetch_max_wait_ms", _FETCH_MS)
        return made

    async def committed(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Where the group was in each partition."""
        consumer = self._ensure_consumer()
        found = await consumer._coordinator.fetch_committed_offsets(places)
        offsets = {place: self._offset(place, found.get(place)) for place in places}
        new = [place for place, offset in offsets.items() if offset is None]
        beginnings = await consumer.beginning_offsets(new) if new else {}
        self.app.beginnings = {TP(*place): offset for place, offset in beginnings.items()}
        self._next = {place: offset for place, offset in offsets.items() if offset is not None}
        return offsets

    async def _fetch_records(self, *args: Any, **kwargs: Any) -> Any:
        records = await super()._fetch_records(*args, **kwargs)
        for place, found in records.items():
            offset = found[0].offset
            if offset < self._next.get(place, offset):
                where = {"topic": place.topic, "partition": place.partition, "offset": offset}
                log.warning("triggers.went_back", extra=where | {"from": self._next[place]})
                self.consumer.go_back(TP(*place))
            self._next[place] = found[-1].offset + 1
        return records

    def _offset(self, place: TopicPartition, known: OffsetAndMetadata | None) -> int | None:
        """The offset that was committed for this topic, not for another one of its name."""
        if known is None:
            return None
        topic_id = self.app.topic_ids.get(place.topic, "")
        if known.metadata and topic_id and known.metadata != topic_id:
            log.warning("triggers.topic_is_another", extra={"topic": place.topic, "partition": place.partition})
            return None
        return int(known.offset)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        ids = self.app.topic_ids
        try:
            await self._ensure_consumer().commit(
                {
                    TopicPartition(*tp): OffsetAndMetadata(offset, ids.get(tp.topic, ""))
                    for tp, offset in offsets.items()
                    if tp in self.assignment()
                }
            )
        except CommitFailedError as exc:
            log.info("triggers.not_committed", extra={"error": str(exc)})
            return False
        except Exception as exc:  # noqa: BLE001 - as Faust does: the session ends, and another begins
            await self.crash(exc)
            return False
        return True


class _Consumer(faust_consumer.Consumer):
    app: Any
    logger = _faust_log
    thread = _ConsumerThread

    def reached(self, tp: TP) -> int | None:
        """The offset up to which the partition was read; None until that is known."""
        assignment = self._thread._ensure_consumer()._subscription.subscription.assignment
        state = assignment.state_value(TopicPartition(*tp)) if assignment is not None else None
        return int(state.position) if state is not None and state.has_valid_position else None

    def go_back(self, tp: TP) -> None:
        """Take records of earlier offsets than before; Faust waits meanwhile, and compares none of them."""
        self._read_offset[tp] = None

    async def _add_gap(self, *_: Any) -> None:
        """Gaps of offsets matter only to Faust's own account."""

    def _filter_committable_offsets(self, _: Iterable[TP]) -> dict[TP, int]:
        reached = self.app.beginnings | self.app.handled
        return {tp: offset for tp, offset in reached.items() if offset != self._committed_offset[tp]}


class _Transport(faust_consumer.Transport):
    Consumer = _Consumer
