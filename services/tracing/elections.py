"""The spans of elections: in an elector that traces, each job that a turn decided gets one (extra `otel`).

They are made when the turn is committed, from what it wrote, so deciding knows nothing of them. Only jobs whose trace
is recorded (the flag `sampled` of their context) get spans, and no more than `SPANS_PER_S` a second; the exporter
sends them from a thread of its own.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from joblog.services.tracing.tracer import MESSAGE_ID, W3C, of_job, tracer
from joblog.streams.contract.traceparent import recorded_trace
from joblog.streams.contract.wire import JobEvent
from joblog.streams.lane.output import LaneOutput
from opentelemetry import context as contexts
from opentelemetry import trace

log = logging.getLogger(__name__)

#: One costs the elector about 30 µs, and the exporter keeps 2,048 that it has not sent.
SPANS_PER_S: Final = 1_000


class ElectionSpans:
    """Makes the spans of a turn, from its begin to its commit, below the context that each job carries.

    - on_left_out: called with the number of spans of a turn that were too many.
    """

    def __init__(
        self,
        on_left_out: Callable[[int], None],
        per_s: int = SPANS_PER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracer = tracer()
        self._on_left_out = on_left_out
        self._per_s = per_s
        self._clock = clock
        self._since, self._made = clock(), 0

    def __call__(self, outputs: Mapping[int, LaneOutput], began_ms: int) -> None:
        """The turn that began then is committed, and has led to this in each lane. Never raises."""
        try:
            self._trace(outputs, began_ms, time.time_ns())
        except Exception:  # a sampler or processor of the user's: electing matters more
            log.exception("elector.not_traced")

    def _trace(self, outputs: Mapping[int, LaneOutput], began_ms: int, ended_ns: int) -> None:
        left_out = 0
        for lane, out in outputs.items():
            for (job_id, traceparent), events in _recorded(out).items():
                if self._may_make_one():
                    self._make(job_id, traceparent, events, lane, began_ms * 1_000_000, ended_ns)
                else:
                    left_out += 1
        if left_out:
            self._on_left_out(left_out)

    def _may_make_one(self) -> bool:
        now = self._clock()
        if now - self._since >= 1:
            self._since, self._made = now, 0
        self._made += 1
        return self._made <= self._per_s

    def _make(
        self, job_id: str, traceparent: str, events: list[JobEvent], lane: int, began_ns: int, ended_ns: int
    ) -> None:
        parent = W3C.extract({"traceparent": traceparent}, contexts.Context())
        if not trace.get_current_span(parent).get_span_context().is_valid:
            return  # it looks like a context, and is none: its ids are zero, or its version is unknown
        last = events[-1]
        attributes: dict[str, str | int | list[str]] = {
            **of_job(last.task, last.queue),
            MESSAGE_ID: job_id,
            "joblog.attempt": last.attempt,
            "joblog.lane": lane,
            "joblog.states": [event.state.value for event in events],
        }
        span = self._tracer.start_span(f"elect {last.task}", parent, attributes=attributes, start_time=began_ns)
        span.end(ended_ns)


def _recorded(out: LaneOutput) -> dict[tuple[str, str], list[JobEvent]]:
    """The events of each job whose trace is recorded, by the job's id and its context."""
    found: dict[tuple[str, str], list[JobEvent]] = {}
    for job_id, _type, _id, event, _cause, traceparent in out.events:
        if traceparent is not None and type(event) is JobEvent and recorded_trace(traceparent) is not None:
            found.setdefault((job_id, traceparent), []).append(event)
    return found
