"""The consumer of other services' topics, on Faust: a session is one Faust app from its start to its end.

Faust runs with at-least-once and no tables, no web server and no files. Three things are not as Faust does them:

- It reads what is committed only. Faust does that in its exactly-once mode alone.
- An event is acknowledged by hand, when Kafka has all that follows from it; Faust commits the offset below the first
  record that is not acknowledged. Each partition is handled in order (partitions.py), because Faust counts a record
  behind a gap of offsets as acknowledged as soon as a later one is.
- A partition that holds too much is stopped as Faust's own full buffers are. Its `pause_partitions` would lose what
  had been fetched.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import faust
from aiokafka.errors import UnsupportedCodecError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from joblog.streams.errors import IntakeError, SettingsError
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.triggers.partitions import Delivery, Partitions
from joblog.streams.triggers.records import Record

log = logging.getLogger(__name__)
_faust_log: Final = logging.getLogger("faust.triggers")

SESSION_S: Final = 6.0
HEARTBEAT_S: Final = 2.0
COMMIT_S: Final = 1.0
#: How long events that are being handled may take when the process stops.
GRACE_S: Final = 5.0
STOP_S: Final = 20.0
#: Records come in answers that the broker holds back no longer than this.
_FETCH_MS: Final = 100


class Session:
    """Reads topics as a member of a group, until it is stopped or fails. Used in one asyncio loop."""

    def __init__(
        self,
        config: KafkaConfig,
        group: str,
        client_id: str,
        topics: Sequence[str],
        handle: Callable[[Record], Awaitable[None]],
        on_rebalance: Callable[[], object],
    ) -> None:
        """`on_rebalance` is called when the group has given out its partitions anew."""
        self._app = _app(config, group, client_id)
        self._partitions = Partitions(handle, self._on_full, self._on_room, self._on_failed)
        self._on_rebalance = on_rebalance
        self._next: dict[TP, int] = {}
        self._failure: BaseException | None = None
        self.is_joined = False
        self.is_running = False
        topic = self._app.topic(
            *topics, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        self._app.agent(topic, name="triggers")(self._take)
        self._app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        self._app.on_partitions_assigned.connect(self._on_assigned, weak=False)

    async def start(self) -> None:
        """Connect; the group gives out partitions later. Raises what Faust raises when no broker answers."""
        self._app.finalize()
        self.is_running = True
        await self._app.start()

    async def stop(self) -> None:
        """Finish what is being handled, commit, and leave the group. Raises IntakeError if Faust does not stop."""
        await self._partitions.finish(GRACE_S)
        await self._partitions.drop()
        try:
            await asyncio.wait_for(self._app.stop(), STOP_S)
        except TimeoutError as exc:
            raise IntakeError(f"the consumer has not stopped for {STOP_S:g} s") from exc
        self.is_running = False

    def check(self) -> None:
        """Raise IntakeError if the session has ended by itself."""
        failure = self._failure or self._app.crash_reason
        if failure is not None or self._app.should_stop:
            raise IntakeError(_told(failure)) from failure

    def lags(self) -> Iterator[tuple[str, int, int]]:
        """Topic, partition, and how many records are not handled yet, of the partitions of this process."""
        consumer = self._app.consumer
        for tp in consumer.assignment():
            highwater, known = consumer.highwater(tp), self._next.get(tp)
            if highwater is not None:
                first = known if known is not None else consumer._committed_offset[tp] or 0
                yield tp.topic, tp.partition, max(0, highwater - first)

    async def _take(self, stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            tp = message.tp
            record = Record(
                message.topic,
                message.partition,
                message.offset,
                round((message.timestamp or 0) * 1000),
                message.key,
                message.value,
                list(message.headers or ()),
            )

            def done(event: Any = event, tp: TP = tp, offset: int = message.offset) -> None:
                event.ack()
                self._next[tp] = offset + 1

            self._partitions.put(Delivery(record, done))

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        await self._partitions.drop()
        self._next.clear()

    async def _on_assigned(self, _: Any, assigned: set[TP], **__: Any) -> None:
        # What arrived between the two calls was read for the former assignment.
        await self._partitions.drop()
        self._next.clear()
        self.is_joined = True
        log.info("triggers.assigned", extra={"partitions": len(assigned)})
        self._on_rebalance()

    def _on_full(self, place: tuple[str, int]) -> None:
        self._app.consumer.on_buffer_full(TP(*place))

    def _on_room(self, place: tuple[str, int]) -> None:
        if TP(*place) in self._app.consumer.assignment():
            self._app.consumer.on_buffer_drop(TP(*place))

    def _on_failed(self, error: BaseException) -> None:
        self._failure = self._failure or error


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer, which reads what is committed only."""

    logger = _faust_log

    def _create_worker_consumer(self, transport: Any) -> Any:
        made = super()._create_worker_consumer(transport)
        for name, value in (("_isolation_level", "read_committed"), ("_fetch_max_wait_ms", _FETCH_MS)):
            if not hasattr(made, name):
                raise IntakeError(f"this version of aiokafka has no {name}: install the one that Joblog pins")
            setattr(made, name, value)
        return made


class _Consumer(driver.Consumer):
    logger = _faust_log

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):
    Consumer = _Consumer


def _told(failure: BaseException | None) -> str:
    """Why a session ended, with the fix where there is one."""
    if isinstance(failure, UnsupportedCodecError):
        return (
            f"a topic is compressed in a way that this process cannot read ({failure}): pip install cramjam, or let "
            "the broker store the topic with compression.type=gzip or uncompressed"
        )
    return f"the consumer ended: {failure!r}"


def _app(config: KafkaConfig, group: str, client_id: str) -> Any:
    url = [f"aiokafka://{server.strip()}" for server in config.bootstrap_servers.split(",")]
    app = faust.App(
        group,
        broker=url,
        broker_client_id=client_id,
        broker_credentials=credentials(config.options),
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_request_timeout=30.0,
        broker_rebalance_timeout=30.0,
        broker_commit_interval=COMMIT_S,
        broker_max_poll_records=500,
        # A position that the log no longer holds, and a group that has none: the oldest record (see starts.py).
        consumer_auto_offset_reset="earliest",
        processing_guarantee="at_least_once",
        # No standbys: aiokafka's own assignor, which gives a member only topics that it asks for.
        table_standby_replicas=0,
        stream_wait_empty=False,
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        datadir="/nonexistent",
    )
    app.transport = _Transport(app.conf.broker_consumer, app, loop=app.loop)
    return app


def credentials(options: Mapping[str, str]) -> Any:
    """Faust's form of librdkafka's properties; None for a connection in the clear.

    Raises SettingsError for a mechanism that is not supported here.
    """
    protocol = options.get("security.protocol", "PLAINTEXT")
    context = _tls(options) if protocol.endswith("SSL") else None
    if not protocol.startswith("SASL"):
        return faust.SSLCredentials(context) if context is not None else None
    mechanism = options.get("sasl.mechanism", "")
    if not mechanism.startswith(("PLAIN", "SCRAM")):
        raise SettingsError(
            f"triggers cannot use sasl_mechanism {mechanism}: give this process PLAIN or SCRAM credentials"
        )
    return faust.SASLCredentials(
        username=options.get("sasl.username"),
        password=options.get("sasl.password"),
        ssl_context=context,
        mechanism=mechanism,
    )


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if certificate := options.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, options.get("ssl.key.location"), options.get("ssl.key.password"))
    except OSError as exc:
        raise SettingsError(f"the certificates of kafka.ssl_* cannot be used: {exc}") from exc
    return context
