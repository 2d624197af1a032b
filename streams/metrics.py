"""Every metric as a row: name, kind, labels, help; made once in each process from this table."""

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client import Histogram as SingleHistogram

Kind = Literal["counter", "gauge", "histogram"]

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; histograms are in seconds. Labels are bounded: queues, tasks, types, never a job's id."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _SECONDS


METRICS: Final[tuple[Metric, ...]] = (
    # elector
    Metric("joblog_log_events_total", "counter", "Events written to the log"),
    Metric("joblog_election_inputs_total", "counter", "Commands and reports decided"),
    Metric("joblog_transactions_total", "counter", "Transactions by result", ("role", "result")),
    Metric("joblog_transaction_duration_seconds", "histogram", "From begin to commit", ("role",)),
    Metric("joblog_producer_rebuilds_total", "counter", "Producers rebuilt after a doubtful commit", ("role",)),
    Metric("joblog_lanes", "gauge", "Lanes that this elector owns"),
    Metric("joblog_lanes_aside", "gauge", "Lanes that this elector has set aside, by reason", ("reason",)),
    Metric(
        "joblog_unserved_jobs",
        "gauge",
        "Jobs found, when lanes were loaded, in a lane that the settings do not serve for their queue",
        ("queue",),
    ),
    Metric("joblog_live_jobs", "gauge", "Jobs that this elector holds in memory"),
    Metric("joblog_stale_reports_total", "counter", "Reports rejected for an old lease or version", ("type",)),
    Metric("joblog_commands_rejected_total", "counter", "Commands rejected, by code", ("code",)),
    Metric("joblog_commands_forwarded_total", "counter", "Commands sent on to their own lane"),
    Metric("joblog_filter_errors_total", "counter", "Elect-state filters that raised", ("filter",)),
    Metric("joblog_lane_takeover_seconds", "histogram", "From assignment to a loaded lane"),
    # any role
    Metric("joblog_quarantined_records_total", "counter", "Records parked with their reason", ("role", "reason")),
    Metric(
        "joblog_internal_errors_total", "counter", "Unexpected exceptions after which a role started over", ("role",)
    ),
    Metric("joblog_kafka_errors_total", "counter", "Errors reported by the Kafka client", ("role", "code")),
    Metric("joblog_db_errors_total", "counter", "Postgres errors by SQLSTATE class", ("role", "sqlstate")),
    Metric("joblog_rebalances_total", "counter", "Group rebalances seen", ("role",)),
    # worker
    Metric("joblog_jobs_started_total", "counter", "Runs started", ("queue", "task")),
    Metric("joblog_jobs_finished_total", "counter", "Runs ended, by outcome", ("queue", "task", "outcome")),
    Metric("joblog_job_duration_seconds", "histogram", "From start to end of a run", ("queue", "task")),
    Metric("joblog_job_wait_seconds", "histogram", "From ready to start", ("queue", "task")),
    Metric("joblog_worker_slots", "gauge", "Jobs this worker runs at once"),
    Metric("joblog_worker_slots_used", "gauge", "Jobs this worker runs now"),
    # delays
    Metric("joblog_timers_waiting", "gauge", "Timers held in memory, due within a minute"),
    Metric("joblog_timers_fired_total", "counter", "Timers whose instant came"),
    Metric("joblog_timers_moved_total", "counter", "Timers placed into a shorter tier", ("tier",)),
    Metric("joblog_timer_lateness_seconds", "histogram", "From due to fired"),
    # projector
    Metric("joblog_projection_events_total", "counter", "Events applied to Postgres"),
    Metric("joblog_projection_lag_records", "gauge", "Events not applied yet", ("partition",)),
    Metric(
        "joblog_projection_applied_timestamp_seconds",
        "gauge",
        "Log time of the last applied event",
        ("partition",),
    ),
    Metric("joblog_projection_batch_seconds", "histogram", "One batch, from decode to commit"),
    Metric("joblog_build_info", "gauge", "1; what is running", ("version", "python", "librdkafka", "role")),
)


class Histogram(SingleHistogram):
    """A histogram that also takes many observations at once, for a quarter of what each costs alone."""

    def observe_all(self, amounts: Collection[float]) -> None:
        """As `observe` with each of them."""
        self._sum.inc(sum(amounts))
        for bucket, count in Tally(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
            self._buckets[bucket].inc(count)


class Meters:
    """The metrics of one process, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._all: dict[str, Counter | Gauge | Histogram] = {}
        for row in METRICS:
            self._all[row.name] = self._made(row)

    def _made(self, row: Metric) -> Counter | Gauge | Histogram:
        match row.kind:
            case "counter":
                return Counter(row.name, row.help, row.labels, registry=self.registry)
            case "gauge":
                return Gauge(row.name, row.help, row.labels, registry=self.registry)
            case "histogram":
                return Histogram(row.name, row.help, row.labels, registry=self.registry, buckets=row.buckets)

    def inc(self, name: str, *labels: str, by: float = 1) -> None:
        metric = self._of(name, labels)
        assert isinstance(metric, Counter | Gauge)
        metric.inc(by)

    def set(self, name: str, value: float, *labels: str) -> None:
        metric = self._of(name, labels)
        assert isinstance(metric, Gauge)
        metric.set(value)

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        metric = self._of(name, labels)
        assert isinstance(metric, Histogram)
        metric.observe(seconds)

    def observe_all(self, name: str, seconds: Collection[float], *labels: str) -> None:
        metric = self._of(name, labels)
        assert isinstance(metric, Histogram)
        metric.observe_all(seconds)

    def _of(self, name: str, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        metric = self._all[name]
        return metric.labels(*labels) if labels else metric
