"""The recurring process as a member of its group: a Faust app that reads the topic `recurring`.

The topic is its own changelog. Faust acknowledges nothing here (`acks=False`), so whoever is given a partition reads
it from the beginning, in the order of the log; at each rebalance every member starts anew. A Faust table would be a
copy of the topic that a process which was paused for long could overwrite with what it knew, and it keeps the rows of
partitions that it lost.
"""

import asyncio
from collections.abc import Callable, Iterable
from tempfile import gettempdir
from typing import Any, NamedTuple

import faust
from joblog.streams.contract.record_headers import Headers, is_name
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import SESSION_TIMEOUT_S, KafkaConfig
from joblog.streams.kafka.faust_consumer import Transport
from joblog.streams.kafka.faust_credentials import credentials


class Read(NamedTuple):
    """A record of the topic as it came."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


OnPartitions = Callable[[Iterable[int]], None]
OnRecord = Callable[[Read], None]


def member(
    config: KafkaConfig,
    names: TopicNames,
    *,
    on_assigned: OnPartitions,
    on_revoked: Callable[[], None],
    on_record: OnRecord,
) -> faust.App:
    """An app that is ready to start in the running event loop; it calls back from that loop."""
    app = faust.App(
        f"{names.prefix}recurring",
        broker=[f"kafka://{server.strip()}" for server in config.bootstrap_servers.split(",")],
        broker_credentials=credentials(config.options, "recurring"),
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
    app.transport = Transport(app.conf.broker_consumer, app, loop=app.loop)
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
