"""What the metrics add to those of prometheus-client."""

from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.metrics import METRICS, Meters

BOUNDS = next(metric for metric in METRICS if metric.kind == "histogram").buckets
#: Those at the bounds of buckets, and whole numbers, whose sum does not depend on their order.
AMOUNTS = st.sampled_from(BOUNDS) | st.integers(0, 10_000).map(float)


@given(st.lists(st.lists(AMOUNTS, max_size=20), max_size=4))
def test_many_observations_at_once_are_what_they_are_one_by_one(batches: list[list[float]]) -> None:
    at_once, one_by_one = Meters(), Meters()
    for amounts in batches:
        at_once.observe_all("joblog_timer_lateness_seconds", amounts)
        for amount in amounts:
            one_by_one.observe("joblog_timer_lateness_seconds", amount)
    for suffix, labels in [("_sum", {}), ("_count", {}), *(("_bucket", {"le": str(float(b))}) for b in BOUNDS)]:
        name = f"joblog_timer_lateness_seconds{suffix}"
        got, expected = (meters.registry.get_sample_value(name, labels) for meters in (at_once, one_by_one))
        assert got is not None
        assert expected is not None
        assert abs(got - expected) < 1e-6
