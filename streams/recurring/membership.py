"""The recurring process as a member of its group: a Faust app that reads the topic `recurring`.

The topic is its own changelog. Faust acknowledges nothing here (`acks=False`), so whoever is given a partition reads
it from the beginning, in the order of the log; at each rebalance every member starts anew, and also when Faust has
thrown away what it had fetched meanwhile: it goes back to what is committed then, which is the beginning here. A
Faust table would be a copy of the topic that a process which was paused for long could overwrite with what it knew,
and it keeps the rows of partitions that it lost.

Names of headers that are not UTF-8 are read, too (kafka/aiokafka_batches.py): one such record would stop all of its
partition.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from tempfile import gettempdir
from typing import Any, Final, NamedTuple

import faust
from aiokafka.consumer import fetcher
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.auth import AuthProtocol
from joblog.streams.contract.record_headers import Headers, is_name
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import SettingsError
from joblog.streams.kafka.aiokafka_batches import Batches
from joblog.streams.kafka.clients import SESSION_TIMEOUT_S, KafkaConfig


class Read(NamedTuple):
    """A record of the topic as it came."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


OnPartitions = Callable[[Iterable[int]], None]
OnRecord = Callable[[Read], None]


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    async def seek_to_committed(self) -> Mapping[TP, None]:  # type: ignore[override]  # as aiokafka answers it
        found: Mapping[TP, None] = await self.call_thread(self._seek)
        return found

    async def _seek(self) -> Mapping[TP, None]:
        consumer = self._ensure_consumer()
        places = consumer.assignment()
        if places:
            await consumer.seek_to_beginning(*places)
        return dict.fromkeys(TP(*place) for place in places)


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):
    Consumer = _Consumer


def member(
    config: KafkaConfig,
    names: TopicNames,
    *,
    on_assigned: OnPartitions,
    on_revoked: Callable[[], None],
    on_record: OnRecord,
) -> faust.App:
    """An app that is ready to start in the running event loop; it calls back from that loop."""
    if not hasattr(fetcher, "MemoryRecords"):
        raise SettingsError("this version of aiokafka has no MemoryRecords: install the one that Joblog pins")
    fetcher.MemoryRecords = Batches
    app = faust.App(
        f"{names.prefix}recurring",
        broker=[f"kafka://{server.strip()}" for server in config.bootstrap_servers.split(",")],
        broker_credentials=credentials(config),
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=SESSION_TIMEOUT_S / 3,
        consumer_auto_offset_reset="earliest",
        store="memory://",
        datadir=gettempdir(),  # Faust makes a directory there, and writes nothing
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        autodiscover=False,
        loop=asyncio.get_running_loop(),
    )
    app.transport = _Transport(app.conf.broker_consumer, app, loop=app.loop)
    topic = app.topic(
        names.recurring,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        acks=False,
    )

    async def read(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            headers = [(name, value) for name, value in message.headers or () if is_name(name)]
            on_record(Read(message.partition, message.offset, message.key, message.value, headers))

    async def assigned(*args: Any, **_: Any) -> None:  # the app, and the partitions
        on_assigned(place.partition for place in args[1])

    async def revoked(*_args: Any, **_: Any) -> None:
        on_revoked()

    app.agent(topic, name="recurring")(read)
    app.on_partitions_assigned.connect(assigned, weak=False)
    app.on_partitions_revoked.connect(revoked, weak=False)
    app.finalize()
    return app


_PASSWORD_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def credentials(config: KafkaConfig) -> Any:
    """librdkafka's properties as Faust's credentials; None for plain connections."""
    options = config.options
    protocol, mechanism = options.get("security.protocol", "PLAINTEXT"), options.get("sasl.mechanism")
    context = _ssl_context(options) if protocol.endswith("SSL") else None
    if protocol == "SSL":
        return faust.SSLCredentials(context=context)
    if not protocol.startswith("SASL"):
        return None
    if mechanism not in _PASSWORD_MECHANISMS:
        raise SettingsError(
            f"kafka.sasl_mechanism {mechanism} is not supported by the recurring process: "
            f"choose one of {', '.join(_PASSWORD_MECHANISMS)}"
        )
    made = faust.SASLCredentials(
        username=options["sasl.username"],
        password=options["sasl.password"],
        mechanism=mechanism,
        ssl_context=context,
    )
    made.protocol = AuthProtocol(protocol)
    return made


def _ssl_context(options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
    if certificate := options.get("ssl.certificate.location"):
        context.load_cert_chain(certificate, options.get("ssl.key.location"), options.get("ssl.key.password"))
    return context
