"""Tracing where OpenTelemetry is not installed, or has no provider of tracers."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from joblog.services.tracing.export import export_spans
from joblog.services.tracing.installed import TRACING
from joblog.services.tracing.spans import NO_SPAN
from joblog.streams.contract.wire import RunJob
from msgspec import Raw

JOB = RunJob(
    job_id="018f0000-0000-8001-8000-000000000001",
    lease=1,
    attempt=1,
    lane=1,
    task="t",
    queue="q",
    spec=Raw(b"{}"),
    ready_ms=0,
    traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
)
WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from joblog.services.tracing.export import export_spans
from joblog.services.tracing.installed import TRACING
from joblog.services.tracing.spans import NO_TRACING
from joblog.services import Client
assert TRACING is NO_TRACING
try:
    print(export_spans("joblog-worker"))
except Exception as error:
    print(type(error).__name__, error)
"""


def without_the_package(**variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], env=variables, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_is_traced_without_a_provider() -> None:
    assert TRACING.start(JOB) is NO_SPAN
    with TRACING.sending("t", "q", 1) as traceparent:
        assert traceparent is None


def test_nothing_is_traced_without_the_package() -> None:
    assert without_the_package() == "False"


def test_a_collector_that_cannot_be_used_is_an_error_that_names_the_fix() -> None:
    said = without_the_package(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert said.startswith("SettingsError OTEL_EXPORTER_OTLP_ENDPOINT is set")
    assert said.endswith("pip install 'joblog[otel]'")


def test_spans_are_exported_only_where_a_collector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert not export_spans("joblog-worker")


EXPORTS = """
from joblog.services.tracing.export import export_spans
from joblog.services.tracing.installed import TRACING
assert export_spans("joblog-worker")
with TRACING.sending("t", "q", 1) as traceparent:
    assert traceparent
"""


class Collector(BaseHTTPRequestHandler):
    """Notes what it is sent."""

    received: list[tuple[str, bytes]] = []

    def do_POST(self) -> None:
        self.received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Tests write no log."""


def test_a_collector_gets_the_spans_of_a_process_when_it_ends() -> None:
    Collector.received.clear()
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        }
        try:
            subprocess.run([sys.executable, "-c", EXPORTS], env=variables, check=True, timeout=60)
        finally:
            server.shutdown()
            thread.join()
    ((path, body),) = Collector.received
    assert path == "/v1/traces"
    assert b"send t" in body
    assert b"joblog-worker" in body
