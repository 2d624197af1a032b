"""What all structs of messages share: their base classes, and the types of their fields."""

from datetime import datetime
from typing import Annotated, TypeAlias

from joblog.streams.contract.fields import LINES_MAX, Text
from msgspec import Meta, Raw, Struct

Instant = Annotated[datetime, Meta(tz=True)]
NonNegative = Annotated[float, Meta(ge=0)]
#: As many as their column in Postgres holds.
Slots = Annotated[int, Meta(ge=0, le=2**31 - 1)]
#: Names have patterns, and matching one costs more than decoding the whole message: codec.py does it for commands and
#: for those reports whose names are written again, once for each name it sees.
JobId: TypeAlias = str
QueueName: TypeAlias = str
TaskName: TypeAlias = str
WorkerId: TypeAlias = str
NO_RAW = Raw(b"null")
EMPTY_ARRAY = Raw(b"[]")
EMPTY_OBJECT = Raw(b"{}")


class Wire(Struct, frozen=True, omit_defaults=True, gc=False):
    """The base of all structs: frozen, written without defaults, not tracked by the garbage collector."""


class Outside(Wire, frozen=True, forbid_unknown_fields=True):
    """A message from outside, or a part of one."""


class Report(Wire, frozen=True, tag_field="type", kw_only=True):
    """A message of a worker, another process or another lane to an elector: a JSON object with its `type`."""


#: What a run logged, in one report.
Lines = Annotated[tuple[Text, ...], Meta(max_length=LINES_MAX)]
