"""The consumer of other services' topics: a session is one Faust app from its start to its end.

Each partition is handled in order (partitions.py), and a record counts as handled when Kafka has all that follows
from it. A partition that holds too much is stopped as Faust's own full buffers are; its `pause_partitions` would lose
what had been fetched. Records of a former assignment never get here: Faust's streams leave them out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, cast

from aiokafka.errors import UnsupportedCodecError
from faust.types import TP
from joblog.streams.errors import IntakeError
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.triggers.faust_app import App
from joblog.streams.triggers.partitions import Delivery, Partitions
from joblog.streams.triggers.records import Record

log = logging.getLogger(__name__)

#: How long events that are being handled may take when the process stops.
GRACE_S: Final = 5.0
STOP_S: Final = 20.0


class Session:
    """Reads topics as a member of a group, until it is stopped or fails. Used in one asyncio loop."""

    def __init__(
        self,
        config: KafkaConfig,
        group: str,
        client_id: str,
        topic_ids: Mapping[str, str],
        handle: Callable[[Record], Awaitable[None]],
        on_rebalance: Callable[[], object],
    ) -> None:
        """Reads the topics in `topic_ids`. `on_rebalance` is called when the group has given out its partitions."""
        app = App(config, group, client_id, topic_ids)
        self._app = cast("Any", app)
        self._handled = app.handled
        self._partitions = Partitions(handle, self._on_full, self._on_room, self._on_failed)
        self._on_rebalance = on_rebalance
        self._failure: BaseException | None = None
        self.is_joined = False
        self.is_running = False
        topic = self._app.topic(
            *topic_ids, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        self._app.agent(topic, name="triggers")(self._take)
        self._app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        self._app.on_partitions_assigned.connect(self._on_assigned, weak=False)

    async def start(self) -> None:
        """Connect; the group gives out partitions later. Raises what Faust raises when no broker answers."""
        self._app.finalize()
        self.is_running = True
        await self._app.start()

    async def stop(self) -> None:
        """Finish what is being handled, commit, and leave the group. Raises IntakeError if Faust does not stop."""
        await self._partitions.finish(GRACE_S)
        await self._partitions.drop()
        try:
            await asyncio.wait_for(self._app.stop(), STOP_S)
        except TimeoutError as exc:
            raise IntakeError(f"the consumer has not stopped for {STOP_S:g} s") from exc
        self.is_running = False

    def check(self) -> None:
        """Raise IntakeError if the session has ended by itself."""
        failure = self._failure or self._app.crash_reason
        if failure is not None or self._app.should_stop:
            raise IntakeError(_told(failure)) from failure

    def lags(self) -> Iterator[tuple[str, int, int]]:
        """Topic, partition, and how many records are not handled yet, of the partitions of this process."""
        consumer = self._app.consumer
        for tp in consumer.assignment():
            highwater, reached = consumer.highwater(tp), consumer.reached(tp)
            if highwater is not None and reached is not None:
                # Behind the last record there may be offsets without one, as a transaction leaves them.
                handled, taken = self._handled.get(tp), consumer._read_offset[tp]
                first = reached if handled is None or handled - 1 == taken else handled
                yield tp.topic, tp.partition, max(0, highwater - first)

    async def _take(self, stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            tp = message.tp
            record = Record(
                message.topic,
                message.partition,
                message.offset,
                round((message.timestamp or 0) * 1000),
                message.key,
                message.value,
                list(message.headers or ()),
            )
            # All before the first record was handled in a former session, or is not there.
            self._handled.setdefault(tp, message.offset)
            self._partitions.put(Delivery(record, partial(self._handled.__setitem__, tp, message.offset + 1)))

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        await self._partitions.drop()
        self._handled.clear()
        self._app.beginnings = {}

    async def _on_assigned(self, _: Any, assigned: Any, **__: Any) -> None:
        # What arrived between the two calls was read for the former assignment.
        await self._partitions.drop()
        self._handled.clear()
        self.is_joined = True
        log.info("triggers.assigned", extra={"partitions": len(assigned)})
        self._on_rebalance()

    def _on_full(self, place: tuple[str, int]) -> None:
        self._app.consumer.on_buffer_full(TP(*place))

    def _on_room(self, place: tuple[str, int]) -> None:
        if TP(*place) in self._app.consumer.assignment():
            self._app.consumer.on_buffer_drop(TP(*place))

    def _on_failed(self, error: BaseException) -> None:
        self._failure = self._failure or error


def _told(failure: BaseException | None) -> str:
    """Why a session ended, with the fix where there is one."""
    if isinstance(failure, UnsupportedCodecError):
        return (
            f"a topic is compressed in a way that this process cannot read ({failure}): pip install 'joblog[faust]'"
        )
    return f"the consumer ended: {failure!r}"
