"""Events of other services in memory: handled by the code that the process `joblog triggers` handles them with."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final

from joblog.projections.monitor.models import JobDetails
from joblog.services.client.json_values import encode_json
from joblog.services.client.templates import Rules
from joblog.services.tasks.modules import declared
from joblog.services.testing.broker import Broker
from joblog.services.testing.telling import DeadLetter, letters_of
from joblog.services.testing.told import EventLog
from joblog.services.triggers.bound import BoundTrigger, awaited, called
from joblog.services.triggers.trigger import Trigger, TriggerRegistry
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import JoblogError
from joblog.streams.metrics import Meters
from joblog.streams.patience import Patience
from joblog.streams.recurring.jobs import Installation
from joblog.streams.triggers.handling import Handling
from joblog.streams.triggers.records import Outgoing, Record

#: Of events that are published without one.
SOURCE: Final = "/joblog/testing"


class EventParked(JoblogError):
    """An event became a dead letter, and the call was asked to say so."""


class Publishing:
    """What `InMemoryJoblog` has of this."""

    _topics: "Topics"
    _log: EventLog

    def publish(
        self,
        topic: str,
        data: Any = None,
        *,
        type: str | None = None,  # noqa: A002 - as in the event
        id: str | None = None,  # noqa: A002 - as in the event
        source: str | None = None,
        subject: str | None = None,
        key: bytes | None = None,
        headers: Headers | None = None,
        raises: bool = False,
    ) -> list[JobDetails]:
        """Let triggers have an event of another service; returns the jobs that it is, new ones or not.

        Those whose commands were rejected, and are not there, are in `rejected`.

        - type, id, source, subject: those of a CloudEvent with these data. Without them `data` is the whole record:
          plain JSON, a CloudEvent as a dict, or bytes as they are on Kafka.
        - raises: EventParked if it becomes a dead letter; `parked` has all of these.

        Time passes while a function that raises is called again. JoblogError for a topic that no trigger reads.
        """
        value = self._topics.value(topic, data, {"type": type, "id": id, "source": source, "subject": subject})
        before = len(self.parked)
        made = self._topics.publish(topic, key, value, headers or [])
        if raises and len(self.parked) > before:
            raise EventParked("\n".join(letters_of(self.parked[before:])))
        return [job for job_id in made if (job := self._log.job(job_id)) is not None]

    @property
    def parked(self) -> list[DeadLetter]:
        """The events that could not become jobs, oldest first: the topic `deadletters`."""
        return list(self._topics.parked)


class Topics:
    """The topics of other services, and what reads them. `parked` are the dead letters, oldest first."""

    def __init__(self, broker: Broker, where: Installation, args_bytes_max: int) -> None:
        self._broker, self._names = broker, TopicNames()
        self._rules = Rules(where.lanes, where.shards, "/joblog/triggers", args_bytes_max, where.shards_before)
        self._triggers: dict[str, Trigger[..., Any]] = {}
        self._ends: Counter[str] = Counter()
        self._meters = Meters()
        self.parked: list[DeadLetter] = []

    def register(self, *sources: object) -> None:
        """Call the triggers among these, and in these modules; SettingsError if two have one name."""
        found = declared(sources, Trigger)
        self._triggers = {one.name: one for one in TriggerRegistry.of(*self._triggers.values(), *found)}

    def value(self, topic: str, data: Any, attributes: Mapping[str, str | None]) -> bytes:
        """A CloudEvent, if there are attributes; else the data alone."""
        given = {name: value for name, value in attributes.items() if value is not None}
        if not given:
            return data if isinstance(data, bytes) else encode_json(data, "event")
        if "type" not in given or isinstance(data, bytes):
            what = "beside bytes, which are the whole record" if "type" in given else "without a type"
            raise JoblogError(f"{', '.join(given)} {what}: leave it out, or write type=... and data as JSON has them")
        default = {"specversion": "1.0", "id": f"{topic}-{self._ends[topic]}", "source": SOURCE}
        return encode_json({**default, **given, "data": data}, "event")

    def publish(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> list[str]:
        """Let a record of a topic be handled; the ids of the jobs that it is, whether they are new or not."""
        topics = sorted({one.topic for one in self._triggers.values()})
        if topic not in topics:
            there = f"there are triggers on {', '.join(topics)}" if topics else "there are no triggers"
            raise JoblogError(
                f"no trigger reads {topic}: {there}; give the module with yours to InMemoryJoblog(...) or register()"
            )
        record = Record(topic, 0, self._ends[topic], self._broker.now_ms, key, value, headers)
        self._ends[topic] += 1
        bound = [BoundTrigger(one, self._rules, _CallsHere()) for one in self._triggers.values()]
        made: list[str] = []
        write = partial(self._write, made)
        handling = Handling(bound, self._names, write, Patience(), self._meters.inc, self._sleep)
        _run(handling.handle(record))
        return made

    async def _write(self, made: list[str], records: Sequence[Outgoing]) -> None:
        for one in records:
            if one.topic == self._names.deadletters:
                self.parked.append(_letter(one))
                continue
            assert isinstance(one.key, str)
            assert one.value is not None
            made.append(one.key)
            self._broker.command(lane_of_job(one.key), one.value)

    async def _sleep(self, seconds: float) -> None:
        self._broker.advance_to(self._broker.now_ms + round(seconds * 1000))


class _CallsHere:
    """Calls functions in the thread of the test."""

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return called(function, *args)

    async def on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await awaited(coroutine)


def _letter(said: Outgoing) -> DeadLetter:
    headers = {name: text.decode() for name, text in said.headers or [] if isinstance(text, bytes)}
    place = headers["joblog-topic"], int(headers["joblog-offset"])
    return DeadLetter(*place, headers["joblog-reason-code"], headers["joblog-reason"], said.value)


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    coroutine.close()
    raise JoblogError(
        "an event loop runs in this thread: write `await asyncio.to_thread(joblog.publish, ...)`, or publish in a "
        "test that is not async"
    )
