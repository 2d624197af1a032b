"""The worker filter that traces runs (extra `otel`)."""

from contextvars import ContextVar, Token
from typing import NamedTuple

from joblog.services.tasks.context import JobContext
from joblog.services.tracing.tracer import MESSAGE_ID, OPERATION, SYSTEM, W3C, of_job, tracer
from joblog.services.worker.execution.results import Failed, Succeeded
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode


class _Traced(NamedTuple):
    run: JobContext
    span: Span
    token: Token[contexts.Context]


class TracingWorkerFilter:
    """Gives each run two spans in the trace of its job: how long the job waited for it, and the run itself.

    The run's span is the current one for the task, and for what the task creates. A run in a process of its own is
    traced from outside; in it, `current_job().traceparent` is the context of the job. A run that is given back when
    the worker stops leaves no span.
    """

    def __init__(self) -> None:
        self._tracer = tracer()
        self._current: ContextVar[_Traced | None] = ContextVar("joblog_traced", default=None)

    def before_run(self, context: JobContext) -> None:
        if (given_back := self._current.get()) is not None:
            contexts.detach(given_back.token)
        carrier = {} if context.traceparent is None else {"traceparent": context.traceparent}
        parent = W3C.extract(carrier, contexts.Context())
        attributes: dict[str, str | int] = {
            **of_job(context.task, context.queue),
            MESSAGE_ID: context.job_id,
            "joblog.attempt": context.attempt,
            "joblog.worker": context.worker,
        }
        ready_ns = round(context.ready_at.timestamp() * 1000) * 1_000_000
        self._tracer.start_span(f"wait {context.task}", parent, attributes=attributes, start_time=ready_ns).end()
        span = self._tracer.start_span(
            f"process {context.task}",
            parent,
            SpanKind.CONSUMER,
            {SYSTEM: "kafka", OPERATION: "process", **attributes},
        )
        self._current.set(_Traced(context, span, contexts.attach(trace.set_span_in_context(span, parent))))

    def after_run(self, context: JobContext, outcome: Succeeded | Failed) -> None:
        traced = self._current.get()
        if traced is None or traced.run is not context:  # a filter before this one failed
            return
        self._current.set(None)
        contexts.detach(traced.token)
        if isinstance(outcome, Failed):
            exception = outcome.exception
            traced.span.set_attribute("error.type", exception.type)
            traced.span.set_status(Status(StatusCode.ERROR, f"{exception.type}: {exception.message}"))
        traced.span.end()
