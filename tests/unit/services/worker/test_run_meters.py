"""The metrics of runs: their exemplars name traces that are recorded."""

from types import SimpleNamespace
from typing import Any

import pytest
from joblog.services.worker.reports import RunMeters
from joblog.streams.metrics import Meters
from prometheus_client.openmetrics.exposition import generate_latest

TRACE = "0af7651916cd43dd8448eb211c80319c"


def exemplars(traceparent: str | None) -> list[str]:
    meters = Meters()
    runs = RunMeters(meters)
    job = SimpleNamespace(queue="mails", task="send", ready_ms=1_000, traceparent=traceparent)
    run: Any = SimpleNamespace(job=job, started_ms=1_020, duration_ms=7.0)
    runs.started(run)
    runs.ended(run, "succeeded")
    runs.flush()
    lines = generate_latest(meters.registry).decode().splitlines()
    return [line.partition(" # ")[2].partition("} ")[0] for line in lines if " # " in line]


def test_a_recorded_trace_is_named_by_the_wait_and_the_duration() -> None:
    assert exemplars(f"00-{TRACE}-b7ad6b7169203331-01") == [f'{{trace_id="{TRACE}"'] * 2


@pytest.mark.parametrize(
    "traceparent", [None, f"00-{TRACE}-b7ad6b7169203331-00", "nonsense", f"00-{TRACE}-b7ad6b7169203331-01x", ""]
)
def test_no_other_trace_is(traceparent: str | None) -> None:
    assert exemplars(traceparent) == []
