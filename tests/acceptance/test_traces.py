"""One trace, from the caller's request to the span of the run, sent by OTLP to a collector."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.services.client.tracing import TracingClientFilter
from joblog.streams.contract.ids import lane_of_job
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider

pytestmark = [pytest.mark.broker, pytest.mark.database]


class Collector(ThreadingHTTPServer):
    """Takes spans as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[tuple[str, Span]] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"]
            self.spans.extend((service, span) for scope in resource.scope_spans for span in scope.spans)

    def named(self, name: str, role: str = "worker") -> list[Span]:
        return [span for service, span in self.spans if service == f"joblog-{role}" and span.name == name]


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        self.server.take(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the library's
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_request_and_all_runs_of_its_job_are_one_trace(
    installation: Any, collector: Collector, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    variables = installation.environment() | {"JOBLOG_TRACING__ENABLED": "true"}
    monkeypatch.setattr(installation, "environment", lambda: variables)
    for role in ("elector", "delays", "worker-1"):
        installation.start(role)
    provider = TracerProvider()
    monkeypatch.setattr("joblog.services.tracing.tracer.trace.get_tracer", provider.get_tracer)
    filters = [TracingClientFilter()]
    with (
        provider.get_tracer("shop").start_as_current_span("request") as request,
        Client(installation.kafka, installation.names, installation.lanes, filters=filters) as client,
    ):
        job = client.enqueue("flaky")
    wait_until(lambda: len(collector.named("process flaky")) == 2, 60, "the spans of both runs")
    trace_id = request.get_span_context().trace_id.to_bytes(16, "big")
    waits, runs = collector.named("wait flaky"), collector.named("process flaky")
    assert {span.trace_id for span in waits + runs} == {trace_id}
    assert sorted(_attribute(span, "joblog.attempt") for span in runs) == [1, 2]
    assert {_attribute(span, "messaging.message.id") for span in waits + runs} == {job}
    events = installation.events()[job]
    wait_until(lambda: _elected(collector) == [event["data"]["state"] for event in events], 20, "all elections")
    elections = collector.named("elect flaky", "elector")
    carried = {event["traceparent"].split("-")[2] for event in events}
    assert {span.parent_span_id.hex() for span in elections + waits + runs} == carried
    assert len(carried) == 1
    assert {span.trace_id for span in elections} == {trace_id}
    assert {_attribute(span, "messaging.message.id") for span in elections} == {job}
    assert {_attribute(span, "joblog.lane") for span in elections} == {lane_of_job(job)}
    assert all(span.start_time_unix_nano < span.end_time_unix_nano for span in elections)
    assert all(event["traceparent"].split("-")[1] == trace_id.hex() for event in events)


def _elected(collector: Collector) -> list[str]:
    """The states that the elector's spans tell of, in the order of time."""
    spans = sorted(collector.named("elect flaky", "elector"), key=lambda span: span.start_time_unix_nano)
    found = [one.value.array_value.values for span in spans for one in span.attributes if one.key == "joblog.states"]
    return [state.string_value for states in found for state in states]


def _attribute(span: Span, name: str) -> Any:
    (value,) = [one.value for one in span.attributes if one.key == name]
    return value.int_value if value.HasField("int_value") else value.string_value
