"""A partition of the topic `recurring` in the hands of a process."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from joblog.streams.recurring.parking import Parking
from joblog.streams.recurring.plan import Plan
from joblog.streams.recurring.rows import Rows

#: The key of the mark, which no definition can have.
MARK: Final = "|mark"
#: How long nothing of a partition is read before its mark has come back, at most.
SILENT_S: Final = 30.0


class Silent(Exception):
    """Nothing of a partition was read, though its mark has not come back: the consumer does not read it."""


@dataclass(slots=True)
class Held:
    """A partition of this process; `is_ready` once its own mark was read.

    - read_at: when a record of it was read, or it was given to this process.
    - unnoted: by definition, the last plan that was carried out and is not noted, and when its commands were stored.
    """

    rows: Rows = field(default_factory=Rows)
    parking: Parking = field(default_factory=Parking)
    mark: bytes = field(default_factory=lambda: secrets.token_hex(8).encode())
    is_marked: bool = False
    is_ready: bool = False
    read_at: float = field(default_factory=time.monotonic)
    unnoted: dict[str, tuple[Plan, datetime | None]] = field(default_factory=dict)

    def listen(self, number: int) -> None:
        """Raises Silent if this partition, which has this number, is not ready and was not read for too long."""
        if not self.is_ready and time.monotonic() - self.read_at > SILENT_S:
            raise Silent(f"nothing of partition {number} was read for {SILENT_S:g} s")

    def carried_out(self, made: Plan, created_at: datetime | None) -> None:
        """The commands of this plan are stored, since this time; that has to be noted."""
        made.row.progress, made.row.next_due = made.progress(created_at), None
        self.unnoted[made.row.id] = made, created_at

    def notes(self) -> Iterator[tuple[str, bytes | None]]:
        """Keys and values of what has to be noted; nothing of a definition that was removed meanwhile."""
        for recurring_id, (made, created_at) in self.unnoted.items():
            if self.rows.rows.get(recurring_id) is made.row and made.row.definition is not None:
                yield from made.notes(created_at)
