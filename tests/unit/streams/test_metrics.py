"""What the metrics add to those of prometheus-client."""

from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract.topics import DELAY_TIERS
from joblog.streams.elector.lane_records import AsideCode
from joblog.streams.metrics import METRICS, Meters
from prometheus_client.openmetrics.exposition import generate_latest

BOUNDS = next(metric for metric in METRICS if metric.name == "joblog_timer_lateness_seconds").buckets
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


def test_an_exemplar_is_in_the_bucket_of_its_amount() -> None:
    meters = Meters()
    meters.observe_all("joblog_job_wait_seconds", [0.004, 0.2], "mails", "send", trace=(0.2, "4bf92f35"))
    text = generate_latest(meters.registry).decode()
    (line,) = [line for line in text.splitlines() if "trace_id" in line]
    assert line.startswith(
        'joblog_job_wait_seconds_bucket{le="0.25",queue="mails",task="send"} 2.0 # {trace_id="4bf92f35"} 0.2'
    )


def value(meters: Meters, name: str, **labels: str) -> float | None:
    return meters.registry.get_sample_value(name, labels)


def test_names_beyond_the_cap_are_counted_together() -> None:
    meters = Meters(queues_max=2, tasks_max=1)
    for number in range(5):
        meters.inc("joblog_jobs_started_total", f"q{number}", "t")
    meters.inc("joblog_jobs_started_total", "q0", "t2")
    assert value(meters, "joblog_jobs_started_total", queue="q1", task="t") == 1
    assert value(meters, "joblog_jobs_started_total", queue="other", task="t") == 3
    assert value(meters, "joblog_jobs_started_total", queue="q0", task="other") == 1
    assert value(meters, "joblog_jobs_started_total", queue="q4", task="t") is None


def test_a_gauge_that_is_replaced_keeps_no_old_series_and_joins_those_beyond_the_cap() -> None:
    meters = Meters(queues_max=2)
    meters.replace("joblog_queue_slots", [(("a",), 1.0), (("b",), 2.0), (("c",), 3.0), (("d",), 4.0)])
    assert value(meters, "joblog_queue_slots", queue="b") == 2
    assert value(meters, "joblog_queue_slots", queue="other") == 7
    meters.replace("joblog_queue_slots", [(("c",), 3.0), (("d",), 1.0)], min)
    assert value(meters, "joblog_queue_slots", queue="other") == 1
    assert value(meters, "joblog_queue_slots", queue="a") is None


def test_a_role_exports_its_own_metrics_and_the_known_series_as_zero() -> None:
    meters = Meters(role="elector")
    assert value(meters, "joblog_transactions_total", role="elector", result="failed") == 0
    assert value(meters, "joblog_fenced_total", role="elector") == 0
    assert value(meters, "joblog_quarantined_records_total", role="elector", reason="undecodable") == 0
    assert value(meters, "joblog_live_jobs") == 0
    assert value(meters, "joblog_timers_waiting") is None
    assert value(Meters(role="delays"), "joblog_timers_moved_total", tier="1h") == 0


def test_series_that_are_known_later_can_be_shown_as_zero() -> None:
    meters = Meters(role="worker")
    meters.show("joblog_jobs_started_total", "q", "t")
    assert value(meters, "joblog_jobs_started_total", queue="q", task="t") == 0


def test_known_values_are_those_of_the_code() -> None:
    values = {row.name: row.values for row in METRICS}
    assert values["joblog_lanes_aside"]["reason"] == tuple(AsideCode)
    assert values["joblog_timers_moved_total"]["tier"] == tuple(DELAY_TIERS)
