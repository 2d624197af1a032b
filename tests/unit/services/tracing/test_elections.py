"""The spans of elections, kept in memory: whose they are, how many there are, and what they tell."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from joblog.services.tracing.elections import ElectionSpans
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import JobEvent, WorkerEvent
from joblog.streams.lane.output import LaneOutput
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

BEGAN_MS = 1_800_000_000_000
TRACE = f"00-{7:032x}-{9:016x}-01"
STATES = {"job.enqueued": State.ENQUEUED, "job.processing": State.PROCESSING, "job.failed": State.FAILED}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield made
    provider.shutdown()


def led_to(*events: tuple[str, str, str | None]) -> LaneOutput:
    """Events as (job, type, traceparent)."""
    out = LaneOutput()
    for number, (job, kind, traceparent) in enumerate(events, 1):
        data = JobEvent(version=number, state=STATES[kind], attempt=number, queue="images", task="shrink")
        out.events.append((job, kind, f"{job}/{number}", data, None, traceparent))
    return out


def spans(exporter: InMemorySpanExporter) -> list[tuple[str, object, object]]:
    return [
        (span.name, attribute(span, "messaging.message.id"), attribute(span, "joblog.states"))
        for span in exporter.get_finished_spans()
    ]


def attribute(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {})[name]


def test_each_job_of_a_turn_gets_a_span_below_the_context_that_it_carries(exporter: InMemorySpanExporter) -> None:
    turn = {
        0: led_to(("a", "job.enqueued", TRACE), ("b", "job.enqueued", TRACE), ("a", "job.processing", TRACE)),
        3: led_to(("c", "job.failed", f"00-{8:032x}-{1:016x}-03")),
    }
    ElectionSpans(pytest.fail)(turn, BEGAN_MS)
    assert spans(exporter) == [
        ("elect shrink", "a", ("Enqueued", "Processing")),
        ("elect shrink", "b", ("Enqueued",)),
        ("elect shrink", "c", ("Failed",)),
    ]
    first, _, last = exporter.get_finished_spans()
    assert first.parent is not None
    assert (first.parent.trace_id, first.parent.span_id, first.parent.is_remote) == (7, 9, True)
    assert (first.context.trace_id, last.context.trace_id) == (7, 8)
    assert (attribute(first, "joblog.lane"), attribute(last, "joblog.lane")) == (0, 3)
    assert attribute(first, "joblog.attempt") == 3
    assert first.start_time == BEGAN_MS * 1_000_000
    assert first.end_time is not None


@pytest.mark.parametrize(
    "traceparent",
    [None, "", "nonsense", f"00-{7:032x}-{9:016x}-00", f"00-{0:032x}-{9:016x}-01", f"ff-{7:032x}-{9:016x}-01"],
    ids=["none", "empty", "no context", "not sampled", "zero", "unknown version"],
)
def test_no_other_job_gets_one(exporter: InMemorySpanExporter, traceparent: str | None) -> None:
    ElectionSpans(pytest.fail)({0: led_to(("a", "job.enqueued", traceparent))}, BEGAN_MS)
    assert spans(exporter) == []


def test_events_of_workers_have_none(exporter: InMemorySpanExporter) -> None:
    out = LaneOutput()
    started = WorkerEvent("w", ("images",), 4, ("shrink",), "here", 1, datetime(2026, 11, 1, tzinfo=UTC))
    out.events.append(("w", "worker.started", "w/1", started, None, TRACE))
    ElectionSpans(pytest.fail)({0: out}, BEGAN_MS)
    assert spans(exporter) == []


def test_no_more_than_so_many_are_made_in_a_second_and_the_rest_is_counted(exporter: InMemorySpanExporter) -> None:
    left_out: list[int] = []
    clock = Clock()
    elections = ElectionSpans(left_out.append, per_s=3, clock=clock)
    turn = {0: led_to(*((f"job {number}", "job.enqueued", TRACE) for number in range(5)))}
    elections(turn, BEGAN_MS)
    clock.now = 0.9
    elections(turn, BEGAN_MS)
    assert (len(spans(exporter)), left_out) == (3, [2, 5])
    clock.now = 1.0
    elections(turn, BEGAN_MS)
    assert (len(spans(exporter)), left_out) == (6, [2, 5, 2])


def test_jobs_that_are_not_recorded_take_nothing_of_the_limit(exporter: InMemorySpanExporter) -> None:
    unsampled = f"00-{7:032x}-{9:016x}-00"
    turn = {0: led_to(("a", "job.enqueued", unsampled), ("b", "job.enqueued", None), ("c", "job.enqueued", TRACE))}
    ElectionSpans(pytest.fail, per_s=1)(turn, BEGAN_MS)
    assert spans(exporter) == [("elect shrink", "c", ("Enqueued",))]


def test_an_error_of_the_tracer_is_logged_and_stops_nothing(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: object, *_: object, **__: object) -> None:
        raise ValueError("a broken sampler")

    elections = ElectionSpans(pytest.fail)
    monkeypatch.setattr("opentelemetry.sdk.trace.Tracer.start_span", broken)
    with caplog.at_level(logging.ERROR):
        elections({0: led_to(("a", "job.enqueued", TRACE))}, BEGAN_MS)
    assert [record.message for record in caplog.records] == ["elector.not_traced"]
    assert spans(exporter) == []
