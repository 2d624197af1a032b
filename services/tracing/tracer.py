"""The tracer, if OpenTelemetry is installed, and how a process of Joblog exports its spans."""

from importlib.metadata import version
from typing import Final

from joblog.streams.errors import SettingsError

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as exc:
    raise SettingsError(
        'tracing needs OpenTelemetry: pip install "joblog[otel]", or leave JOBLOG_TRACING__ENABLED out'
    ) from exc

#: Names of the semantic conventions for messaging, 1.45 (https://opentelemetry.io/docs/specs/semconv/messaging/).
SYSTEM: Final = "messaging.system"
OPERATION: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
MESSAGE_ID: Final = "messaging.message.id"

W3C: Final = TraceContextTextMapPropagator()


def of_job(task: str, queue: str) -> dict[str, str]:
    """The attributes of a span that tell what it is about."""
    return {DESTINATION: queue, "joblog.task": task}


def tracer() -> trace.Tracer:
    """Of the provider that the process has set; without one, spans go nowhere."""
    return trace.get_tracer("joblog", version("joblog"))


def export_spans(role: str) -> None:
    """Let this process send its spans by OTLP over HTTP.

    The address and all else come from OpenTelemetry's own variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT` (by
    default port 4318 of this host) and `OTEL_SERVICE_NAME` (by default `joblog-` and the role).
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - 0.2 s
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above

    named = Resource.create({"service.name": f"joblog-{role}"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)  # it flushes when the process ends
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
