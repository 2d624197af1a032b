"""Sends records with headers whose names are not UTF-8, which most clients refuse to do."""

from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy


class NotUtf8(str):
    """The name of a header, as bytes that no UTF-8 text has: the first one is no part of a character."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff" + str(self)[1:].encode()


async def send_with_header(
    bootstrap_servers: str, topic: str, partition: int, name: str, *records: tuple[bytes | None, bytes]
) -> None:
    """Send these keys and values in one batch; each record has the header, and one called `own`."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(
            magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0,
            batch_size=1_000_000,
        )  # fmt: skip
        for key, value in records:
            assert batch.append(key=key, value=value, timestamp=None, headers=[(name, b"1"), ("own", b"kept")])
        await (await producer.send_batch(batch, topic, partition=partition))
