"""Batches of records as aiokafka reads them, but for names of headers that are not UTF-8.

Kafka takes such names, and aiokafka raises CorruptRecordException for the whole batch then, again and again: the
partition would stand still for ever. Here the name is read with surrogates for the bytes that are wrong, which
nothing can encode; who handles the record sees it by that (`contract.record_headers.is_name`). Known by those whose
records Faust reads; put in the place of `aiokafka.consumer.fetcher.MemoryRecords`.
"""

from typing import Any, Final

from aiokafka.record import default_records, legacy_records, memory_records
from aiokafka.record.util import decode_varint

_MAGIC_AT: Final = memory_records._MemoryRecordsPy.MAGIC_OFFSET


class Batches(memory_records._MemoryRecordsPy):  # type: ignore[misc]
    """The batches in an answer of a broker."""

    def next_batch(self) -> Any:
        following = self._next_slice
        if following is None:
            return None
        self._cache_next()
        if following[_MAGIC_AT] >= 2:
            return _Batch(following)
        return legacy_records.LegacyRecordBatch(following, following[_MAGIC_AT])


class _Batch(default_records._DefaultRecordBatchPy):  # type: ignore[misc]
    def _read_msg(self, *_: Any) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            return self._read_leniently()

    def _read_leniently(self) -> Any:
        """The record at the position, which `super()` leaves where it was when it fails."""
        cursor = _Cursor(self._buffer, self._pos)  # type: ignore[has-type]
        end = cursor.number() + cursor.position
        cursor.number()  # attributes: none is in use
        timestamp = self.first_timestamp + cursor.number()
        if self.timestamp_type == self.LOG_APPEND_TIME:
            timestamp = self.max_timestamp
        offset = self.base_offset + cursor.number()
        key, value = cursor.bytes(), cursor.bytes()
        headers = []
        for _ in range(cursor.number()):
            name = cursor.bytes() or b""
            headers.append((name.decode(errors="surrogateescape"), cursor.bytes()))
        self._pos = end
        return default_records._DefaultRecordPy(offset, timestamp, self.timestamp_type, key, value, headers)


class _Cursor:
    """Reads what a record is made of: numbers of variable length, and bytes behind their length (-1 for null)."""

    def __init__(self, buffer: Any, position: int) -> None:
        self._buffer = buffer
        self.position = position

    def number(self) -> int:
        number, self.position = decode_varint(self._buffer, self.position)
        return int(number)

    def bytes(self) -> bytes | None:
        length = self.number()
        if length < 0:
            return None
        start, self.position = self.position, self.position + length
        return bytes(self._buffer[start : self.position])
