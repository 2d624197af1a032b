"""How queues are set while all is running: one record for each in the topic `queues`; a tombstone undoes it."""

from typing import Annotated, Final

from joblog.streams.contract.fields import StrictMessage, Text
from joblog.streams.contract.ids import LANES_MAX
from pydantic import Field

#: The topic has one partition.
PARTITION: Final = 0


class QueueSettings(StrictMessage):
    """Over how many lanes clients spread the new jobs of a queue, in place of `queue_shards`; who says so, and why.

    Jobs whose lane follows from a key are left where they are: those with an idempotency or unique key, of recurring
    definitions, triggers and an outbox.
    """

    shards: Annotated[int, Field(ge=1, le=LANES_MAX)]
    by: Text | None = None
    reason: Text | None = None
