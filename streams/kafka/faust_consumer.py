"""Faust's consumer, with nothing lost of what it reads.

- Faust fetches while a group's partitions are given out, throws that away, and goes back to what is committed. For a
  partition of which nothing is committed it goes nowhere: what was thrown away would never be read. Here it is read
  from its beginning again.
- Names of headers that are not UTF-8 are read (aiokafka_batches.py).

A process sets `app.transport = Transport(app.conf.broker_consumer, app, loop=app.loop)`, or one with a thread of its
own, before its app starts.
"""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from aiokafka.consumer import fetcher
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from joblog.streams.errors import SettingsError
from joblog.streams.kafka.aiokafka_batches import Batches


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Reads all from its beginning whenever Faust goes back; `committed` says where a process would rather go on."""

    async def committed(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Where to go on in each partition; None for its beginning."""
        return dict.fromkeys(places)

    async def seek_to_committed(self) -> Mapping[TP, int | None]:  # type: ignore[override]  # as aiokafka answers it
        found: Mapping[TP, int | None] = await self.call_thread(self._seek)
        return found

    async def _seek(self) -> Mapping[TP, int | None]:
        consumer = self._ensure_consumer()
        offsets = await self.committed(list(consumer.assignment()))
        for place, offset in offsets.items():
            if offset is not None:
                consumer.seek(place, offset)
        if new := [place for place, offset in offsets.items() if offset is None]:
            await consumer.seek_to_beginning(*new)
        return {TP(*place): offset for place, offset in offsets.items()}

    def _create_worker_consumer(self, transport: Any) -> Any:
        made = super()._create_worker_consumer(transport)
        replace(fetcher, "MemoryRecords", Batches)
        return made


class Consumer(driver.Consumer):
    """Faust's consumer, on a thread of this kind."""

    thread: ClassVar[type[ConsumerThread]] = ConsumerThread

    def _new_consumer_thread(self) -> Any:
        return self.thread(self, loop=self.loop, beacon=self.beacon)


class Transport(driver.Transport):
    """Makes such consumers."""

    Consumer = Consumer


def replace(where: Any, name: str, value: Any) -> None:
    """Set what aiokafka has no parameter for; SettingsError if this version of it works otherwise."""
    if not hasattr(where, name):
        raise SettingsError(f"this version of aiokafka has no {name}: install the one that Joblog pins")
    setattr(where, name, value)
