"""The client filter that traces creations (extra `otel`)."""

from joblog.services.client.options import JobDraft, with_options
from joblog.services.tracing.tracer import OPERATION, SYSTEM, W3C, of_job, tracer
from opentelemetry.trace import SpanKind


class TracingClientFilter:
    """Gives each job a span of its creation, below the caller's current one, and the trace's context.

    Give it to a client as one of its `filters`, or set `tracing.enabled`. Which spans are exported, and where to, is
    for the process to configure. A job whose options have a `traceparent` keeps it.
    """

    def __init__(self) -> None:
        self._tracer = tracer()

    def on_creating(self, draft: JobDraft) -> JobDraft:
        if draft.options.traceparent is not None:
            return draft
        attributes = {SYSTEM: "kafka", OPERATION: "create", **of_job(draft.task, draft.options.queue or "default")}
        carrier: dict[str, str] = {}
        with self._tracer.start_as_current_span(
            f"create {draft.task}", kind=SpanKind.PRODUCER, attributes=attributes
        ):
            W3C.inject(carrier)
        if "traceparent" not in carrier:  # no provider is set, and there is no current span
            return draft
        return JobDraft(
            draft.task, draft.args, draft.kwargs, with_options(draft.options, traceparent=carrier["traceparent"])
        )

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        """Nothing: the span of a creation does not wait for Kafka."""
