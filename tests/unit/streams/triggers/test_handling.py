import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import InvalidData
from joblog.streams.metrics import Meters
from joblog.streams.patience import Patience
from joblog.streams.triggers import handling
from joblog.streams.triggers.handling import Command, Handling
from joblog.streams.triggers.incoming import IncomingEvent
from joblog.streams.triggers.records import Outgoing, Record, TooLarge

NAMES = TopicNames("t.")


class Function:
    """A trigger's function that does what a test says."""

    def __init__(self, name: str, does: Callable[[IncomingEvent], Any], *, wants: bool = True) -> None:
        self.name, self._does, self._wants = name, does, wants
        self.calls = 0

    def matches(self, _: IncomingEvent) -> bool:
        return self._wants

    async def call(self, event: IncomingEvent) -> Any:
        self.calls += 1
        return self._does(event)

    async def commands(self, event: IncomingEvent, returned: Any) -> Sequence[Command]:
        if returned == "nonsense":
            raise InvalidData("it returned nonsense")
        return [Command(new_job_id(lane, 0, event.offset), b"create") for lane in returned or []]


class Scene:
    def __init__(self, *functions: Function, patience: Patience = Patience()) -> None:  # noqa: B008 - frozen
        self.written: list[Outgoing] = []
        self.value_bytes_max = 1_000
        self.waits: list[float] = []
        self.meters = Meters()
        self.handling = Handling(functions, NAMES, self.write, patience, self.meters.inc, self.sleep)

    async def write(self, records: Sequence[Outgoing]) -> None:
        for one in records:
            if len(one.value or b"") > self.value_bytes_max:
                raise TooLarge("Broker: Message size too large")
            self.written.append(one)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def handle(self, value: bytes | None) -> None:
        asyncio.run(self.handling.handle(record(value)))

    def parked(self) -> list[dict[str, str]]:
        assert {one.topic for one in self.written} <= {"t.deadletters"}
        return [
            {name: text.decode() for name, text in one.headers or [] if isinstance(text, bytes)}
            for one in self.written
        ]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.meters.registry.get_sample_value(name, labels)


def record(value: bytes | None, offset: int = 5) -> Record:
    return Record("uploads", 1, offset, 0, b"key", value, [("own", b"kept")])


def raising(error: BaseException) -> Callable[[IncomingEvent], Any]:
    def does(_: IncomingEvent) -> Any:
        raise error

    return does


def test_the_jobs_of_an_event_are_sent_to_their_lanes() -> None:
    scene = Scene(Function("m.f", lambda _: [0, 3]), Function("m.g", lambda _: None))
    scene.handle(b"{}")
    assert [(one.topic, one.partition, one.value) for one in scene.written] == [
        ("t.commands", 0, b"create"),
        ("t.commands", 3, b"create"),
    ]
    assert scene.sample("joblog_trigger_jobs_total", trigger="m.f") == 2
    assert scene.sample("joblog_trigger_events_total", topic="uploads") == 1


def test_a_function_that_does_not_want_the_event_is_not_called() -> None:
    function = Function("m.f", raising(AssertionError()), wants=False)
    scene = Scene(function)
    scene.handle(b"{}")
    assert (function.calls, scene.written) == (0, [])


def test_what_is_no_event_is_parked_as_it_came() -> None:
    scene = Scene(Function("m.f", raising(AssertionError())))
    scene.handle(b"{broken")
    (letter,) = scene.written
    assert (letter.topic, letter.key, letter.value) == ("t.deadletters", b"key", b"{broken")
    (said,) = scene.parked()
    assert said.pop("joblog-reason").startswith("not JSON")
    assert said == {
        "joblog-reason-code": "undecodable", "joblog-role": "triggers", "joblog-topic": "uploads",
        "joblog-partition": "1", "joblog-offset": "5", "own": "kept",
    }  # fmt: skip
    assert scene.sample("joblog_quarantined_records_total", role="triggers", reason="undecodable") == 1


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SystemExit(3), KeyboardInterrupt(), BaseException(), asyncio.CancelledError()],
    ids=repr,
)
def test_a_function_that_raises_is_called_again_and_then_the_event_is_parked(error: BaseException) -> None:
    function = Function("m.f", raising(error))
    scene = Scene(function, Function("m.g", lambda _: None), patience=Patience(4, 1.0, 3.0))
    scene.handle(b"{}")
    assert (function.calls, scene.waits) == (4, [1.0, 2.0, 3.0])
    (said,) = scene.parked()
    assert said["joblog-reason-code"] == "function_raised"
    first, *rest = said["joblog-reason"].splitlines()
    told = {
        ValueError: "ValueError: no",
        SystemExit: "called sys.exit(3)",
        asyncio.CancelledError: "it was cancelled",
    }.get(type(error), f"it raised {type(error).__name__}")
    assert first.startswith("m.f: ")
    assert told in first
    assert any("_ended" in line for line in rest)
    assert scene.sample("joblog_trigger_errors_total", trigger="m.f") == 4


def test_a_function_that_recovers_is_not_parked() -> None:
    outcomes = iter([OSError("away"), OSError("away"), [1]])

    def does(_: IncomingEvent) -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    scene = Scene(Function("m.f", does))
    scene.handle(b"{}")
    assert [one.topic for one in scene.written] == ["t.commands"]
    assert scene.waits == [1.0, 2.0]


def test_what_is_no_job_is_parked_at_once_and_other_functions_get_the_event() -> None:
    scene = Scene(Function("m.f", lambda _: "nonsense"), Function("m.g", lambda _: [2]))
    scene.handle(b"{}")
    letter, command = scene.written
    assert (letter.topic, command.topic, scene.waits) == ("t.deadletters", "t.commands", [])
    assert dict(letter.headers or [])["joblog-reason-code"] == b"not_a_job"
    assert dict(letter.headers or [])["joblog-reason"] == b"m.f: it returned nonsense"


def test_a_partition_that_is_taken_away_breaks_its_function_off() -> None:
    async def scenario() -> None:
        scene = Scene()
        started = asyncio.Event()

        class Slow(Function):
            async def call(self, _: IncomingEvent) -> Any:
                started.set()
                await asyncio.sleep(60)

        handling = Handling([Slow("m.f", lambda _: None)], NAMES, scene.write, Patience(), scene.meters.inc)
        task = asyncio.create_task(handling.handle(record(b"{}")))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scene.written == []

    asyncio.run(scenario())


def test_delays_double_up_to_their_limit_however_many_attempts_there_are() -> None:
    patience = Patience(1_000, 0.5, 60.0)
    assert [patience.delay_after(attempt) for attempt in (1, 2, 3, 8, 999)] == [0.5, 1.0, 2.0, 60.0, 60.0]


def test_a_traceback_with_text_that_nothing_can_encode_is_parked_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("CRITICAL", "joblog.streams.triggers.handling")  # pytest-xdist could not report the line
    scene = Scene(Function("m.f", raising(ValueError("\ud800 \x00"))), patience=Patience(1))
    scene.handle(json.dumps({"recursion": sys.getrecursionlimit()}).encode())
    assert scene.parked()[0]["joblog-reason-code"] == "function_raised"


def test_a_job_that_is_too_large_for_kafka_is_parked() -> None:
    scene = Scene(Function("m.f", lambda _: [1]))
    scene.value_bytes_max = 5
    scene.handle(b"{}")
    (said,) = scene.parked()
    assert (said["joblog-reason-code"], said["joblog-reason"]) == (
        "too_large", "m.f: Broker: Message size too large",
    )  # fmt: skip
    assert scene.written[0].value == b"{}"
    assert scene.sample("joblog_trigger_jobs_total", trigger="m.f") is None


def test_a_record_that_is_too_large_for_the_dead_letters_is_named_there() -> None:
    scene = Scene()
    scene.handle(b"{" + b" " * 1_000)
    (letter,) = scene.written
    assert (letter.key, letter.value) == (None, None)
    (said,) = scene.parked()
    assert (said["joblog-reason-code"], said["joblog-offset"]) == ("undecodable", "5")
    assert "own" not in said


def test_a_record_that_is_read_with_an_unforeseen_error_is_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: Record) -> None:
        raise ZeroDivisionError("nobody foresaw it")

    monkeypatch.setattr(handling, "read_event", read)
    scene = Scene()
    scene.handle(b"{}")
    (said,) = scene.parked()
    assert said["joblog-reason-code"] == "internal_error"
    assert said["joblog-reason"].startswith("ZeroDivisionError: nobody foresaw it\nTraceback")


def test_a_tombstone_leads_to_nothing() -> None:
    scene = Scene(Function("m.f", raising(AssertionError())))
    scene.handle(None)
    assert scene.written == []


def test_the_name_of_a_header_that_is_not_utf8_is_left_out_of_the_dead_letter() -> None:
    scene = Scene()
    odd = record(b"{}")._replace(headers=[("\udcff", b"1"), ("own", b"kept")])
    asyncio.run(scene.handling.handle(odd))
    (said,) = scene.parked()
    assert (said["joblog-reason-code"], said["own"]) == ("undecodable", "kept")
    assert "\udcff" not in said


def test_a_function_that_changes_its_event_changes_it_for_nobody_else() -> None:
    seen: list[Any] = []

    def does(event: IncomingEvent) -> Any:
        seen.append((dict(event.data), list(event.headers)))
        event.data.pop("id")
        event.headers.append((7, ["no header"]))  # type: ignore[arg-type]
        raise ValueError("after that")

    scene = Scene(Function("m.f", does), Function("m.g", does), patience=Patience(2))
    scene.handle(b'{"id": 1}')
    assert seen == [({"id": 1}, [("own", b"kept")])] * 4, "each of two calls of two functions"
    assert [one["own"] for one in scene.parked()] == ["kept", "kept"]


def test_a_record_with_many_headers_that_is_too_large_is_named_with_the_reason() -> None:
    scene = Scene()
    own: Headers = [(f"h{number}", b"x" * 10_000) for number in range(20)]
    asyncio.run(scene.handling.handle(record(b"{" + b" " * 1_000)._replace(headers=own)))
    (said,) = scene.parked()
    assert (said["joblog-reason-code"], said["joblog-offset"]) == ("undecodable", "5")
