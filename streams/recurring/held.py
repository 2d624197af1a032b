"""A partition of the topic `recurring` in the hands of a process."""

import secrets
from dataclasses import dataclass, field
from typing import Final

from joblog.streams.recurring.parking import Parking
from joblog.streams.recurring.rows import Rows

#: The key of the mark, which no definition can have.
MARK: Final = "|mark"


@dataclass(slots=True)
class Held:
    """A partition of this process; `is_ready` once its own mark was read."""

    rows: Rows = field(default_factory=Rows)
    parking: Parking = field(default_factory=Parking)
    mark: bytes = field(default_factory=lambda: secrets.token_hex(8).encode())
    is_marked: bool = False
    is_ready: bool = False
