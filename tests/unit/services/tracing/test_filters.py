"""The filters that trace, with spans kept in memory."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from joblog.services.client.options import JobDraft, JobOptions
from joblog.services.client.tracing import TracingClientFilter
from joblog.services.tasks.context import JobContext
from joblog.services.worker.execution.results import Failed, success_of
from joblog.services.worker.tracing import TracingWorkerFilter
from joblog.streams.contract.wire import NO_RAW, JobException, RunJob
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

READY = datetime(2026, 11, 1, 12, 0, 0, 250_000, UTC)
DONE = success_of(None, 100)


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return span


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def attribute(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {})[name]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    made = Spans()
    monkeypatch.setattr(trace, "get_tracer", made.provider.get_tracer)
    yield made
    made.provider.shutdown()


def draft(**options: str) -> JobDraft:
    return JobDraft("images.shrink", (), {}, JobOptions(queue="images", **options))  # type: ignore[arg-type]


def run_of(traceparent: str | None, lease: int = 2) -> JobContext:
    job = RunJob(
        job_id="01938f00-0000-8001-8000-000000000001",
        lease=lease,
        attempt=1,
        lane=1,
        queue="images",
        task="images.shrink",
        ready_ms=round(READY.timestamp() * 1000),
        spec=NO_RAW,
        parameters=NO_RAW,
        traceparent=traceparent,
    )
    return JobContext(job, "worker-1")


def test_a_creation_is_a_span_below_the_callers_and_the_job_carries_it(spans: Spans) -> None:
    with spans.provider.get_tracer("shop").start_as_current_span("order") as order:
        made = TracingClientFilter().on_creating(draft())
    creation = spans.named("create images.shrink")
    assert creation.kind is SpanKind.PRODUCER
    assert parent_of(creation) == order.get_span_context().span_id
    assert made.options.traceparent == f"00-{creation.context.trace_id:032x}-{creation.context.span_id:016x}-03"
    assert made.options.queue == "images"


def test_a_context_that_the_caller_gave_stays(spans: Spans) -> None:
    given = f"00-{7:032x}-{9:016x}-01"
    assert TracingClientFilter().on_creating(draft(traceparent=given)).options.traceparent == given
    assert not spans.exporter.get_finished_spans()


def test_without_a_provider_and_a_span_a_job_gets_no_context() -> None:
    assert TracingClientFilter().on_creating(draft()).options.traceparent is None


def test_the_wait_and_the_run_are_in_the_trace_of_the_creation(spans: Spans) -> None:
    traceparent = TracingClientFilter().on_creating(draft()).options.traceparent
    filter_ = TracingWorkerFilter()
    context = run_of(traceparent)
    filter_.before_run(context)
    with spans.provider.get_tracer("task").start_as_current_span("resize"):
        pass
    filter_.after_run(context, DONE)
    creation, wait, run = map(spans.named, ("create images.shrink", "wait images.shrink", "process images.shrink"))
    assert {span.context.trace_id for span in (wait, run, spans.named("resize"))} == {creation.context.trace_id}
    assert parent_of(wait) == parent_of(run) == creation.context.span_id
    assert wait.start_time == 1_793_534_400_250 * 1_000_000
    assert attribute(run, "joblog.attempt") == 1
    assert parent_of(spans.named("resize")) == run.context.span_id
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_failed_run_says_so(spans: Spans) -> None:
    filter_, context = TracingWorkerFilter(), run_of(None)
    filter_.before_run(context)
    filter_.after_run(context, Failed(JobException("ValueError", "no picture", "", ("ValueError",))))
    run = spans.named("process images.shrink")
    assert (run.status.status_code, run.status.description) == (StatusCode.ERROR, "ValueError: no picture")
    assert attribute(run, "error.type") == "ValueError"


def test_runs_of_one_thread_do_not_mix_when_one_was_given_back(spans: Spans) -> None:
    filter_ = TracingWorkerFilter()
    first, second = run_of(f"00-{1:032x}-{1:016x}-01", lease=2), run_of(f"00-{2:032x}-{2:016x}-01", lease=4)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(filter_.before_run, first).result()  # given back on shutdown: nobody calls after_run
        pool.submit(filter_.before_run, second).result()
        pool.submit(filter_.after_run, second, DONE).result()
        current = pool.submit(trace.get_current_span).result()
    assert spans.named("process images.shrink").context.trace_id == 2
    assert not current.get_span_context().is_valid


def test_runs_on_the_event_loop_are_kept_apart(spans: Spans) -> None:
    filter_ = TracingWorkerFilter()

    async def run(number: int, barrier: asyncio.Barrier) -> None:
        context = run_of(f"00-{number:032x}-{number:016x}-01", lease=number)
        filter_.before_run(context)
        await barrier.wait()
        assert trace.get_current_span().get_span_context().trace_id == number
        filter_.after_run(context, DONE)

    async def both() -> None:
        barrier = asyncio.Barrier(2)
        await asyncio.gather(run(1, barrier), run(2, barrier))

    asyncio.run(both())
    runs = [span for span in spans.exporter.get_finished_spans() if span.name.startswith("process")]
    assert {span.context.trace_id for span in runs} == {1, 2}


def test_a_job_tells_when_it_became_ready() -> None:
    assert run_of(None).ready_at == READY
