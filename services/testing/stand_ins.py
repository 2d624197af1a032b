"""What a client in memory has in place of connections: ways to the lanes, and refusals where nobody would answer."""

from collections.abc import Sequence
from typing import Any, NoReturn

from joblog.services.client.bulk import BulkOperations
from joblog.services.client.queue_settings import SettingsOfQueues
from joblog.services.client.templates import CommandRecord
from joblog.services.testing.broker import Broker, NotSimulated
from joblog.streams.contract.ids import lane_of_job


class OneByOne:
    """Hands commands to the lanes, which decide them before the call returns."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def send(self, records: Sequence[CommandRecord]) -> None:
        for record in records:
            self._broker.command(lane_of_job(record.job_id) if record.lane is None else record.lane, record.value)

    def close(self) -> None:
        """There is nothing to close."""


class Together(OneByOne):
    """The same for those that become true together."""

    def send(self, records: Sequence[CommandRecord], _job_ids: Sequence[str] = ()) -> None:
        super().send(records)


class NoBulk(BulkOperations):
    """Nobody is there to work an operation off."""

    def start(self, *_: Any, **__: Any) -> NoReturn:
        raise NotSimulated("bulk operations are not simulated: change each of joblog.jobs(...) instead")


class NoSettingsOfQueues(SettingsOfQueues):
    """Over how many lanes queues are spread is said by `queue_shards`."""

    def write(self, *_: object) -> NoReturn:
        raise NotSimulated("changes of shards are not simulated: give InMemoryJoblog queue_shards=")

    def read(self) -> NoReturn:
        self.write()

    def look(self) -> None:
        """There is nothing to see."""
