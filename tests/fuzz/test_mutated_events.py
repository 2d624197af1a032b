"""Events of other services made wrong: each becomes a job or a dead letter with its reason, or is a tombstone.

JOBLOG_FUZZ_SEED (1) chooses other mutations; JOBLOG_FUZZ_EVENTS (6000) is how many there are.
"""

import asyncio
import json
import logging
import os
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

import pytest
from joblog.services import Job, trigger
from joblog.services.client.templates import Rules
from joblog.services.triggers.bound import BoundTrigger, CallsApart
from joblog.streams.contract.codec import read_command
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.record_headers import size_of
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import CreateJob
from joblog.streams.metrics import Meters
from joblog.streams.patience import Patience
from joblog.streams.triggers.handling import Handling
from joblog.streams.triggers.incoming import IncomingEvent, read_event
from joblog.streams.triggers.records import Outgoing, Record

from tests.support.memory_broker import RECORD_BYTES_MAX, UNREADABLE
from tests.support.mutations import Literal, Written, mutated, written

SEED: Final = int(os.environ.get("JOBLOG_FUZZ_SEED", "1"))
EVENTS: Final = int(os.environ.get("JOBLOG_FUZZ_EVENTS", "6000"))
LANES: Final = 4
NAMES: Final = TopicNames("t.")
ATTRIBUTES: Final = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "image.uploaded"}
MORE: Final = {"subject": "a.png", "time": "2026-02-01T10:00:00.5+02:00", "dataschema": "/x", "extension": "é"}
DATA: Final[list[Any]] = [
    *({"path": "a.png", "size": 5, "tags": ["é", None, 1.5]}, [1, [2, {"a": True}]], "text", 7, None, {}),
    *(Literal(b"[" * 99 + b"]" * 99), Literal(b'{"a":1,"a":2}'), Literal(b"NaN"), Literal(b'"\\u0000"')),
]
REASONS: Final = {"undecodable", "invalid_data", "not_a_job"}


@trigger(topic="uploads")
def uploaded(event: IncomingEvent) -> Job:
    return Job("images.shrink", event.data, subject=event.subject)


class Scene:
    def __init__(self) -> None:
        rules = Rules(LANES, {"default": 2}, "/test", 1_000_000)
        self.written: list[Outgoing] = []
        bound = BoundTrigger(uploaded, rules, CallsApart())
        self.handling = Handling([bound], NAMES, self.write, Patience(1), Meters().inc)

    async def write(self, records: Sequence[Outgoing]) -> None:
        self.written += records

    async def outcome(self, record: Record) -> str:
        """What became of a record, which is checked."""
        self.written.clear()
        await self.handling.handle(record)
        if not self.written:
            assert (record.value, read_event(record)) == (None, None)
            return "tombstone"
        (made,) = self.written
        size = len(made.value or b"") + len(made.key or b"") + size_of(made.headers)
        assert size <= RECORD_BYTES_MAX
        if made.topic == NAMES.commands:
            return checked_command(record, made)
        assert made.topic == NAMES.deadletters
        said = {name.encode().decode(): text for name, text in made.headers or []}
        place = (said[f"joblog-{name}"] for name in ("topic", "partition", "offset"))
        assert (*place, made.value) == (b"uploads", b"1", b"%d" % record.offset, (record.value or None)) or (
            record.value in {None, b""} or len(record.value) > 1_800_000
        )
        code = (said["joblog-reason-code"] or b"").decode()
        assert code in REASONS, said["joblog-reason"]
        assert said["joblog-reason"]
        return code


def checked_command(record: Record, made: Outgoing) -> str:
    event = read_event(record)
    assert event is not None
    assert isinstance(made.key, str)
    assert lane_of_job(made.key) == made.partition
    command = read_command(made.value, None).command
    assert isinstance(command, CreateJob)
    assert command.job_id == made.key
    assert json.loads(bytes(command.args)) == [event.data]
    assert json.loads(bytes(command.kwargs)) == {"subject": event.subject}
    return "job"


def originals(random: Random) -> Written:
    """A good event in any of the forms, or one with data or an id that no service should send."""
    data = random.choice(DATA)
    attributes = {**ATTRIBUTES, **({} if random.random() < 0.5 else MORE)}
    if random.random() < 0.05:
        attributes["id"] = "x" * random.choice([1_000, 1_001, 10_000])
    form = random.choice(["structured", "base64", "binary", "plain"])
    if form == "structured":
        return Written("uploads", b"k", written_event(attributes, b'"data":' + written(data, ascii_only=False)))
    if form == "base64":
        text = b64encode(written(data, ascii_only=False))
        return Written("uploads", None, written_event(attributes, b'"data_base64":"' + text + b'"'))
    headers: Any = [("trace", b"1")]
    if form == "binary":
        headers += [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
        headers.append(("content-type", random.choice([b"application/json", b"application/vnd.x+json; a=b"])))
    return Written("uploads", b"k", written(data, ascii_only=True), headers)


def written_event(attributes: dict[str, str], data: bytes) -> bytes:
    return json.dumps(attributes).encode()[:-1] + b"," + data + b"}"


def record_of(one: Written, offset: int, random: Random) -> Record:
    headers = [("\udcff", b"1")] if one.headers is UNREADABLE else list(one.headers or [])
    time_ms = random.choice([-1, 0, 1_800_000_000_000, 2**63 - 1])
    return Record("uploads", 1, offset, time_ms, one.key, one.value, headers)


@pytest.fixture(autouse=True)
def without_logs() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def test_each_event_is_a_job_or_a_dead_letter() -> None:
    print(f"JOBLOG_FUZZ_SEED={SEED}")  # pytest shows it with a failure
    random, scene, found = Random(f"{SEED}/events"), Scene(), Counter[str]()

    async def handle_all() -> None:
        for offset in range(EVENTS):
            one = mutated(random, originals(random)) if random.random() < 0.9 else originals(random)
            found[await scene.outcome(record_of(one, offset, random))] += 1

    asyncio.run(handle_all())
    print(found)
    assert found.keys() == {"job", "tombstone", *REASONS}
    assert found.total() == EVENTS
    assert found["job"] > EVENTS / 5
