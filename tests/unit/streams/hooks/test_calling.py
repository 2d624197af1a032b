"""From records of `events` to the calls of hooks, without a broker."""

from collections.abc import Callable
from typing import Any

import pytest
from joblog.services.hooks.hook import HookLeft, HookRegistry, on_transition
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.states import State
from joblog.streams.errors import SettingsError
from joblog.streams.hooks.calling import HOOK_RAISED, Calling, Record, Stopped
from joblog.streams.hooks.transition import Transition, read_transition
from joblog.streams.patience import Patience
from msgspec import Raw

from tests.support.jobs import BOOM, ID, NOW_TEXT, event

SUCCEEDED = event(State.SUCCEEDED, worker="w", lease=5, result=Raw(b'{"n":1}'), duration_ms=2.5, latency_ms=1.0)
FAILED = event(State.FAILED, exception=BOOM, reason="it failed")
TRAVERSED = event(State.FAILED, exception=BOOM, traversed=True)
PROGRESSED = event(State.PROCESSING, note="progressed", progress=0.5)


class Message:
    """A record of the topic."""

    def __init__(self, value: bytes | None) -> None:
        self._value = value

    def topic(self) -> str:
        return "events"

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return 7

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes | None:
        return self._value


def record(data: Any, kind: str = "job.succeeded") -> Message:
    return Message(
        encode(wire.CloudEvent("1.0", f"{ID}/6", "/l", kind, ID, NOW_TEXT, None, "reports/1@3", None, data))
    )


class Around:
    """The surroundings, which note what they are asked."""

    def __init__(self, *hooks: Any, attempts: int = 3, stops_waiting: bool = False) -> None:
        self.waits: list[float] = []
        self.parked: list[tuple[str, str]] = []
        self.counts: list[tuple[str, ...]] = []
        self._stops = stops_waiting
        self.stops_running = False
        self.calling = Calling(hooks, self, Patience(attempts, 1.0, 3.0), lambda *labels: self.counts.append(labels))

    def run_function(self, call: Callable[[], object]) -> None:
        if self.stops_running:
            raise Stopped
        call()

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        if self._stops:
            raise Stopped

    def park(self, record: Record, code: str, reason: str) -> None:
        assert record.offset() == 7
        self.parked.append((code, reason))


def noting(told: list[Transition], failures: int = 0, **wanted: Any) -> Any:
    left = [failures]

    @on_transition(**wanted)
    def hook(transition: Transition) -> None:
        if left[0]:
            left[0] -= 1
            raise ValueError("not yet")
        told.append(transition)

    return hook


def test_a_hook_is_told_all_that_the_event_says() -> None:
    told: list[Transition] = []
    Around(noting(told)).calling.handle(record(SUCCEEDED))
    (one,) = told
    assert (one.job_id, one.version, one.state, one.attempt) == (ID, 6, State.SUCCEEDED, 1)
    assert (one.queue, one.task, one.worker, one.result, one.duration_ms) == ("q", "t", "w", {"n": 1}, 2.5)
    assert (one.at.isoformat(), one.cause, one.place) == ("2027-01-15T08:00:00+00:00", "reports/1@3", "events/1@7")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [State.SUCCEEDED, State.FAILED]),
        ({"traversed": True}, [State.SUCCEEDED, State.FAILED, State.FAILED]),
        ({"states": State.FAILED}, [State.FAILED]),
        ({"states": ["Succeeded"]}, [State.SUCCEEDED]),
        ({"tasks": "u"}, []),
        ({"tasks": ["t", "u"], "queues": "q"}, [State.SUCCEEDED, State.FAILED]),
        ({"queues": ["r"]}, []),
    ],
)
def test_a_hook_gets_the_transitions_that_it_wants(wanted: dict[str, Any], expected: list[State]) -> None:
    told: list[Transition] = []
    around = Around(noting(told, **wanted))
    for data, kind in (
        (SUCCEEDED, "job.succeeded"), (FAILED, "job.failed"), (TRAVERSED, "job.failed"),
        (PROGRESSED, "job.progressed"), (event(State.ENQUEUED, name="p"), "job.parameter_set"),
    ):  # fmt: skip
        around.calling.handle(record(data, kind))
    assert [one.state for one in told] == expected


def test_one_that_raises_is_called_again_before_the_next_has_its_turn() -> None:
    first: list[Transition] = []
    second: list[Transition] = []
    around = Around(noting(first, failures=2), noting(second))
    around.calling.handle(record(FAILED, "job.failed"))
    assert (len(first), len(second), around.waits, around.parked) == (1, 1, [1.0, 2.0], [])
    assert [labels[2] for labels in around.counts] == ["raised", "raised", "returned", "returned"]


def test_what_a_hook_raised_too_often_is_parked_and_the_others_are_told() -> None:
    told: list[Transition] = []
    around = Around(noting([], failures=3), noting(told))
    around.calling.handle(record(FAILED, "job.failed"))
    ((code, reason),) = around.parked
    assert (code, len(told), around.waits) == (HOOK_RAISED, 1, [1.0, 2.0])
    assert "noting.<locals>.hook: ValueError: not yet" in reason


def test_a_process_that_stops_is_not_done_with_the_record() -> None:
    around = Around(noting([], failures=1), stops_waiting=True)
    with pytest.raises(Stopped):
        around.calling.handle(record(FAILED, "job.failed"))
    around.stops_running = True
    with pytest.raises(Stopped):
        around.calling.handle(record(FAILED, "job.failed"))
    assert (around.parked, len(around.waits)) == ([], 1)


@pytest.mark.parametrize("value", [None, b"", b"{", b'{"type":"job.failed","data":{}}', b"\xff", b"[" * 10_000])
def test_what_is_no_event_is_parked_at_once(value: bytes | None) -> None:
    around = Around(noting([]))
    around.calling.handle(Message(value))
    assert [code for code, _ in around.parked] == ["undecodable"]


def test_events_of_workers_are_passed_over() -> None:
    assert read_transition(b'{"type":"worker.started","data":{}}', "p") is None


def test_async_functions_are_waited_for_and_no_function_ends_the_process() -> None:
    told: list[Transition] = []

    @on_transition()
    async def awaited(transition: Transition) -> None:
        told.append(transition)

    @on_transition()
    def leaving(_transition: Transition) -> None:
        raise SystemExit(3)

    transition = read_transition(record(FAILED, "job.failed").value(), "p")
    assert transition is not None
    awaited.call(transition)
    assert told == [transition]
    with pytest.raises(HookLeft, match="SystemExit: 3"):
        leaving.call(transition)


def test_what_can_be_no_hook_is_refused() -> None:
    def nothing() -> None: ...

    with pytest.raises(SettingsError, match="cannot be called with one transition"):
        on_transition()(nothing)
    with pytest.raises(SettingsError, match="with brackets"):
        on_transition(nothing)
    with pytest.raises(SettingsError, match="states='Gone'"):
        on_transition(states="Gone")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="names nothing"):
        on_transition(tasks=[])
    one = on_transition()(lambda _transition: None)
    with pytest.raises(SettingsError, match="two hooks have the name"):
        HookRegistry.of(one, on_transition()(lambda _transition: None))
