"""One trace from the producer's call to the runs, over a real broker, elector and worker."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.services.tasks.task import TaskRegistry, task
from joblog.services.tracing.otel import OtelTracing
from joblog.services.worker.worker import Worker
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.elector import Elector
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.openmetrics.exposition import generate_latest

pytestmark = pytest.mark.broker
SECONDS = 40


class Traced:
    """A client, an elector and a worker whose spans stay in memory."""

    def __init__(self, kafka: KafkaConfig, topics: TopicNames, lanes: int) -> None:
        self.exporter, self.provider = InMemorySpanExporter(), TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.tracing = OtelTracing(self.provider)
        self.meters, self.failures = Meters(), [1]
        self.client = Client(kafka, topics, lanes, tracing=self.tracing)
        elector = Elector(kafka, topics, lanes, instance="e", meters=Meters(), health=Health("elector"))
        worker = Worker(
            kafka, topics, lanes, self.tasks(), queues=["default"], slots=2, name="w", grace_s=1.0,
            meters=self.meters, health=Health("worker"), tracing=self.tracing,
        )  # fmt: skip
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=role.run, args=[self.stop]) for role in (elector, worker)]

    def tasks(self) -> TaskRegistry:
        @task("traced.nested")
        def nested() -> None:
            with self.tracer.start_as_current_span("inside"):
                pass

        @task("traced.nested_async")
        async def nested_async() -> None:
            with self.tracer.start_as_current_span("inside async"):
                pass

        @task("traced.flaky", retry=RetryPolicy.fixed(0.1))
        def flaky() -> None:
            if self.failures:
                self.failures.pop()
                raise ConnectionError("not yet")

        return TaskRegistry.of(nested, nested_async, flaky)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@contextmanager
def running(traced: Traced) -> Iterator[None]:
    for thread in traced.threads:
        thread.start()
    try:
        with traced.client:
            yield
    finally:
        traced.stop.set()
        for thread in traced.threads:
            thread.join(SECONDS)


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert child.parent is not None
    return (child.parent.trace_id, child.parent.span_id) == ids(parent)


def test_a_trace_goes_from_the_request_to_the_runs(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    traced = Traced(kafka, topics, lanes)
    with running(traced):
        with traced.tracer.start_as_current_span("request"):
            job_id = traced.client.enqueue("traced.nested")
        traced.client.enqueue_many("traced.nested_async", [((), {}), ((), {})])
        traced.client.enqueue("traced.flaky")
        own = f"00-{'a' * 32}-{'b' * 16}-01"
        traced.client.enqueue("traced.nested", options=JobOptions(traceparent=own))
        wait_until(lambda: len(traced.spans("process traced.nested")) == 2, SECONDS, "the runs")
        wait_until(lambda: len(traced.spans("process traced.nested_async")) == 2, SECONDS, "the async runs")
        wait_until(lambda: len(traced.spans("process traced.flaky")) == 2, SECONDS, "the retry")
        wait_until(lambda: "trace_id=" in generate_latest(traced.meters.registry).decode(), SECONDS, "an exemplar")

    (request,), (send,) = traced.spans("request"), traced.spans("send traced.nested")
    runs = {ids(span)[0]: span for span in traced.spans("process traced.nested")}
    run = runs[ids(request)[0]]
    assert is_child(send, request)
    assert is_child(run, send)
    assert (send.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert run.attributes is not None
    assert (run.attributes["messaging.message.id"], run.attributes["joblog.attempt"]) == (job_id, 1)
    assert any(is_child(span, run) for span in traced.spans("inside"))
    # A trace that the caller names is gone on with, and no span is made for its sending.
    assert int("a" * 32, 16) in runs

    (many,) = traced.spans("send traced.nested_async")
    assert many.attributes is not None
    assert many.attributes["messaging.batch.message_count"] == 2
    asynchronous = traced.spans("process traced.nested_async")
    assert all(is_child(span, many) for span in asynchronous)
    assert all(any(is_child(span, one) for one in asynchronous) for span in traced.spans("inside async"))

    (sent,), attempts = traced.spans("send traced.flaky"), traced.spans("process traced.flaky")
    assert all(is_child(span, sent) for span in attempts)
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.UNSET]
    assert trace.get_current_span() is trace.INVALID_SPAN

    exposed = generate_latest(traced.meters.registry).decode()
    exemplars = [line for line in exposed.splitlines() if "trace_id=" in line]
    assert {line.partition("_bucket")[0] for line in exemplars} == {
        "joblog_job_wait_seconds",
        "joblog_job_duration_seconds",
    }
