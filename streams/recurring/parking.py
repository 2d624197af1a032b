"""Records of the topic `recurring` that cannot be read: each becomes a dead letter once, and nothing stops for it.

Whoever is given a partition reads it from the beginning, and meets the same records again. So the partition itself
remembers how far they were parked: the record with the key `|parked` has the offset of the last one. It is written
after their dead letters were acknowledged, and outlives compaction as the last one of its key; what stands at or
before that offset is left alone. If a process dies between the two writes, the next one parks the same records once
more, with headers that name the same places. The offsets of the consumer group would not do: its members begin to
read there.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from joblog.streams.contract import deadletters
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import ContractError, InternalError
from joblog.streams.metrics import Meters
from joblog.streams.recurring.sender import BY_KEY, Record, Sender

log = logging.getLogger(__name__)

ROLE: Final = "recurring"
#: The key of the record that has the offset; no definition can have it.
PARKED: Final = "|parked"
#: So many are parked at a time: the jobs that are due meanwhile wait for that.
BATCH: Final = 100


class Unreadable(NamedTuple):
    """A record as it came, and why it cannot be read."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    error: ContractError

    @property
    def told(self) -> str:
        """The reason; of an error that nobody foresaw, where it was."""
        return self.error.details if isinstance(self.error, InternalError) else self.error.reason


@dataclass(slots=True)
class Parking:
    """The unreadable records of one partition that are not dead letters yet, in the order of the log."""

    through: int = -1
    waiting: list[Unreadable] = field(default_factory=list)

    def add(self, record: Unreadable) -> None:
        if record.offset > self.through:
            self.waiting.append(record)

    def read(self, value: bytes | None) -> None:
        """Take in a record with the key `|parked`; one that is no number says nothing."""
        text = (value or b"").decode(errors="replace")
        if text.isascii() and text.isdecimal():
            self.done(int(text))

    def done(self, through: int) -> None:
        """All up to this offset are dead letters."""
        self.through = max(self.through, through)
        self.waiting = [one for one in self.waiting if one.offset > self.through]

    def batch(self) -> list[Unreadable]:
        return self.waiting[:BATCH]


def dead_letter(record: Unreadable, topic: str, partition: int, into: str) -> Record:
    """The record of the topic `into` that keeps an unreadable one."""
    why = record.error.code, record.told, ROLE
    said = deadletters.headers(*why, topic, partition, record.offset, record.headers)
    return Record(into, BY_KEY, deadletters.key(record.key), deadletters.value(record.value), said)


def park(sender: Sender, records: Sequence[Unreadable], names: TopicNames, partition: int, meters: Meters) -> None:
    """Make dead letters of the next records of a partition, and note how far that is; returns when both are there."""
    sender.send([dead_letter(one, names.recurring, partition, names.deadletters) for one in records])
    sender.send([Record(names.recurring, partition, PARKED, str(records[-1].offset).encode())])
    for one in records:
        meters.inc("joblog_quarantined_records_total", ROLE, one.error.code)
        place = {"partition": partition, "offset": one.offset, "key": repr(one.key)}
        log.warning("recurring.unreadable", extra={**place, "reason": one.told})
