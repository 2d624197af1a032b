"""The client: creates jobs and changes them; each call is a command that Kafka has acknowledged when it returns.

::

    with Client(KafkaConfig("127.0.0.1:9092"), TopicNames(), lanes=4) as client:
        job_id = client.enqueue("images.shrink", "a.png", width=640)
        client.continue_with(job_id, "images.publish", "a.png")

The elector decides what becomes of a command: a `job.*` event, or a `command.rejected` with its reason.
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Final, Self

from joblog.services.client.batch_calls import BatchCalls
from joblog.services.client.bulk import BulkOperations
from joblog.services.client.checks import problems_of
from joblog.services.client.limits import Limits
from joblog.services.client.options import ClientFilter
from joblog.services.client.queue_settings import SettingsOfQueues
from joblog.services.client.queues import Queues
from joblog.services.client.recurring import RecurringJobs
from joblog.services.client.sending import CommandSender, Sender, TogetherSender
from joblog.services.client.templates import CommandRecord, Rules
from joblog.services.client.tracing_filters import with_tracing
from joblog.services.client.transactions import TransactionSender
from joblog.services.client.workers import Workers
from joblog.services.settings.model import Settings
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import SettingsError
from joblog.streams.kafka.clients import KafkaConfig, producer
from joblog.streams.kafka.durable_producer import DurableProducer

#: Applies while a call hands over its records; after the last one it does not wait for more (sending.py).
LINGER_MS: Final = 5


class Client(BatchCalls, AbstractContextManager["Client"]):
    """Sends commands to one installation: the calls of JobCommands and BatchCalls, acknowledged when they return.

    Thread-safe; make one for each process, and close it at the end.

    - lanes: the number of partitions of the installation's topics.
    - shards, shards_before: the number of lanes that each queue has, and had, as the electors have it (the settings
      `queue_shards` and `queue_shards_before`).
    - filters: called around the creation of each job, by their `order`, then as given; those of the task follow.
    - name: part of the CloudEvents `source` of its commands; by default the host name.
    - timeout_s: how long to wait for Kafka's acknowledgement.
    - args_bytes_max: the largest arguments of one job, as JSON.

    Raises SettingsError for a value that is out of its range.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        *,
        shards: Mapping[str, int] | None = None,
        shards_before: Mapping[str, int] | None = None,
        filters: Sequence[ClientFilter] = (),
        name: str | None = None,
        timeout_s: float = 10.0,
        args_bytes_max: int = 262_144,
    ) -> None:
        self.name: Final = socket.gethostname() if name is None else name
        source = f"/joblog/clients/{self.name}"
        client_id = f"{names.prefix}client-{self.name}"
        self._queue_settings = self._settings_of_queues(config, names, client_id, lanes)
        spread = self._queue_settings.shards
        rules = Rules(lanes, dict(shards or {}), source, args_bytes_max, dict(shards_before or {}), spread)
        for is_wrong, what in problems_of(self.name, rules, timeout_s):
            if is_wrong:
                raise SettingsError(f"client: {what}")
        super().__init__(rules, filters)
        self._sender, self._together = self._senders(config, names, client_id, timeout_s)
        #: Recurring jobs: add, change, pause, trigger and remove them.
        self.recurring: Final = self._recurring(config, names, client_id)
        #: Pause, drain and resume queues, and spread them over more or fewer lanes.
        self.queues: Final = Queues(self.send, self._rules, self._queue_settings)
        #: Change limits while jobs run.
        self.limits: Final = Limits(self.send, self._rules)
        #: Let workers take no more jobs, or stop.
        self.workers: Final = Workers(self.send, self._rules)
        #: Change many jobs in the background.
        self.bulk: Final = self._bulk()

    @classmethod
    def from_settings(cls, settings: Settings, *, filters: Sequence[ClientFilter] = ()) -> Self:
        """A client of the installation that the settings describe; `tracing.enabled` adds the filter that traces."""
        return cls(
            settings.kafka.config(),
            settings.names,
            settings.lanes,
            shards=settings.queue_shards,
            shards_before=settings.queue_shards_before,
            filters=with_tracing(settings, filters),
            name=settings.client.name,
            timeout_s=settings.client.timeout_s,
            args_bytes_max=settings.client.args_bytes_max,
        )

    def _senders(
        self, config: KafkaConfig, names: TopicNames, client_id: str, timeout_s: float
    ) -> tuple[Sender, TogetherSender]:
        """What takes its commands; in users' tests these are lanes in memory (services/testing)."""
        make = partial(producer, config, client_id, linger_ms=LINGER_MS, timeout_ms=round(timeout_s * 1000))
        one_by_one = CommandSender(
            DurableProducer(make), config.bootstrap_servers, names.commands, self._rules.lanes, timeout_s
        )
        return one_by_one, TransactionSender(config, names.commands, client_id, timeout_s, one_by_one.check_topic)

    def _recurring(self, config: KafkaConfig, names: TopicNames, client_id: str) -> RecurringJobs:
        return RecurringJobs(config, names, self._rules.lanes, client_id, self.create)

    def _settings_of_queues(
        self, config: KafkaConfig, names: TopicNames, client_id: str, lanes: int
    ) -> SettingsOfQueues:
        return SettingsOfQueues(config, names.queues, client_id, lanes)

    def _bulk(self) -> BulkOperations:
        return BulkOperations(self.send, self._rules)

    def close(self) -> None:
        """Close the connections, after the calls of other threads that are in progress."""
        self.recurring.close()
        self._queue_settings.close()
        self._together.close()
        self._sender.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, records: Sequence[CommandRecord]) -> None:
        """Send commands, and return when Kafka has acknowledged all.

        Raises NotAcknowledged when the outcome is unknown, TopicsError when the topics are missing or do not fit
        `lanes`; so do all calls that create or change jobs.
        """
        self._sender.send(records)
        self._queue_settings.look()

    def send_together(self, records: Sequence[CommandRecord], job_ids: Sequence[str]) -> None:
        """Send commands in one transaction: all or none. Raises NotAcknowledged, with these ids, and TopicsError."""
        self._together.send(records, job_ids)
        self._queue_settings.look()
