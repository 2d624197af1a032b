"""Records that are sent until Kafka has acknowledged them, however long that takes."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.durable_producer import DurableProducer
from joblog.streams.metrics import Meters
from joblog.streams.triggers.records import Outgoing, TooLarge

log = logging.getLogger(__name__)

_POLL_S: Final = 0.5
#: A record that is not acknowledged within this time is reported, and sent again.
_TIMEOUT_MS: Final = 10_000
#: The delay before a record is sent again doubles, between these.
_WAIT_S: Final = 0.2
_WAIT_S_MAX: Final = 5.0
_CLOSE_S: Final = 5.0
_OF_SIZE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})


class Writer:
    """A producer and the thread that polls it; used from one asyncio loop."""

    def __init__(self, config: KafkaConfig, client_id: str, role: str, meters: Meters) -> None:
        make = partial(clients.producer, config, client_id, linger_ms=2, timeout_ms=_TIMEOUT_MS)
        self._producer = DurableProducer(make)
        self._role = role
        self._meters = meters
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="triggers-writer", daemon=True)
        self._thread.start()
        self.trouble: str = ""

    async def write(self, records: Sequence[Outgoing]) -> None:
        """Return when Kafka has acknowledged all; what fails is sent again, and `trouble` says why.

        Raises TooLarge when it has acknowledged all but those that it refuses for their size.
        """
        left, refused, wait_s = list(records), "", _WAIT_S
        while True:
            errors = await asyncio.gather(*map(self._send, left))
            failed = []
            for record, error in zip(left, errors, strict=True):
                if error is not None and error.code() in _OF_SIZE:
                    refused = error.str()
                elif error is not None:
                    failed.append((record, error))
            if not failed:
                self.trouble = ""
                if refused:
                    raise TooLarge(refused)
                return
            left = [record for record, _ in failed]
            self.trouble = failed[0][1].str()
            log.warning("triggers.not_acknowledged", extra={"records": len(left), "error": self.trouble})
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_S_MAX)

    def close(self) -> None:
        """Send what is still there for some seconds, and end the thread."""
        self._producer.flush(_CLOSE_S)
        self._stop.set()
        self._thread.join()
        self._producer.close()

    async def _send(self, record: Outgoing) -> KafkaError | None:
        """Send a record once; returns why it failed, or None when Kafka has it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[KafkaError | None] = loop.create_future()
        delivered = partial(_delivered, loop, done)
        try:
            self._producer.produce(
                record.topic, record.value, record.key, record.partition, delivered, record.headers
            )
        except BufferError:
            return KafkaError(KafkaError._QUEUE_FULL)
        except KafkaException as exc:
            return self._counted(exc.args[0])
        error = await done
        return None if error is None else self._counted(error)

    def _counted(self, error: KafkaError) -> KafkaError:
        self._meters.inc("joblog_kafka_errors_total", self._role, error.name())
        return error

    def _poll(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(_POLL_S)


def _delivered(
    loop: asyncio.AbstractEventLoop, done: "asyncio.Future[KafkaError | None]", error: KafkaError | None, _: Any
) -> None:
    """Called in the polling thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, done, error)


def _settle(done: "asyncio.Future[KafkaError | None]", error: KafkaError | None) -> None:
    if not done.done():  # nobody waits any more for what was cancelled
        done.set_result(error)
