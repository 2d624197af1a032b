"""Every metric as a row: name, kind, labels, help; made once in each process from this table."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Final, Literal

from joblog.streams.histogram import Histogram
from joblog.streams.label_cap import OTHER, LabelCap
from prometheus_client import CollectorRegistry, Counter, Gauge

Kind = Literal["counter", "gauge", "histogram"]

#: How many names of queues and of tasks one process tells apart; the rest is counted under `other`.
QUEUES_MAX: Final = 100
TASKS_MAX: Final = 200
#: How many pairs of a queue and a task, for each of the names that it tells apart: most tasks have one queue.
PAIRS_PER_NAME: Final = 5
#: How many values of any other label, in each metric; of partitions, as many as there can be lanes.
VALUES_MAX: Final = 200
PARTITIONS_MAX: Final = 4_096

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_LONG: Final = (0.05, 0.25, 1, 5, 30, 60, 300, 1800, 3600, 21_600, 86_400)
_ELECTOR: Final = ("elector",)
_WORKER: Final = ("worker",)
_DELAYS: Final = ("delays",)
_PROJECTOR: Final = ("projector",)
_RECURRING: Final = ("recurring",)
_TRIGGERS: Final = ("triggers",)
_OUTBOX: Final = ("outbox",)


_LIMITS: Final = ("mutex", "semaphore", "fixed_window", "sliding_window", "token_bucket")
_HOOKS: Final = ("hooks",)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; histograms are in seconds. Labels are bounded: never a job's id.

    - roles: the processes that export it; all of them if empty.
    - values: the values of a label that are known beforehand; series of which all labels are known start at 0.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _SECONDS
    roles: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


METRICS: Final[tuple[Metric, ...]] = (
    # elector
    Metric("joblog_log_events_total", "counter", "Events written to the log", roles=_ELECTOR),
    Metric("joblog_election_inputs_total", "counter", "Commands and reports decided", roles=_ELECTOR),
    Metric("joblog_jobs_created_total", "counter", "Jobs created", ("queue", "task"), roles=_ELECTOR),
    Metric(
        "joblog_jobs_ended_total",
        "counter",
        "Jobs that came to a final state: Succeeded, Failed or Deleted",
        ("queue", "task", "state"),
        roles=_ELECTOR,
    ),
    Metric("joblog_job_retries_total", "counter", "Automatic retries elected", ("queue", "task"), roles=_ELECTOR),
    Metric(
        "joblog_jobs_lost_total", "counter", "Runs that ended with their worker", ("queue", "task"), roles=_ELECTOR
    ),
    Metric(
        "joblog_jobs_expired_total",
        "counter",
        "Jobs that did not start in time, or still ran at their deadline",
        ("queue", "task"),
        roles=_ELECTOR,
    ),
    Metric(
        "joblog_job_end_to_end_seconds",
        "histogram",
        "From a job's creation to its final state, with all waiting, retries and runs",
        ("queue", "task"),
        _LONG,
        roles=_ELECTOR,
    ),
    Metric("joblog_batches_created_total", "counter", "Batches created", roles=_ELECTOR),
    Metric(
        "joblog_batches_ended_total",
        "counter",
        "Batches that came to an end, each time if they went on after one",
        ("state",),
        roles=_ELECTOR,
        values={"state": ("Succeeded", "Failed", "Deleted")},
    ),
    Metric("joblog_batches_cancelled_total", "counter", "Batches that were cancelled", roles=_ELECTOR),
    Metric("joblog_workers_lost_total", "counter", "Workers whose lease ran out", roles=_ELECTOR),
    Metric("joblog_jobs_overdue_total", "counter", "Scheduled jobs elected without their timer", roles=_ELECTOR),
    Metric(
        "joblog_transactions_total",
        "counter",
        "Transactions by result",
        ("role", "result"),
        roles=_ELECTOR,
        values={"result": ("committed", "failed")},
    ),
    Metric("joblog_transaction_duration_seconds", "histogram", "From begin to commit", ("role",), roles=_ELECTOR),
    Metric(
        "joblog_fenced_total",
        "counter",
        "Times that another process took this one's place",
        ("role",),
        roles=_ELECTOR,
    ),
    Metric("joblog_lanes", "gauge", "Lanes that this elector owns and that work", roles=_ELECTOR),
    Metric(
        "joblog_lanes_aside",
        "gauge",
        "Lanes that this elector has set aside, by reason",
        ("reason",),
        roles=_ELECTOR,
        values={"reason": ("log_lost", "state_lost", "state_unreadable", "internal_error", "rebuilding")},
    ),
    Metric("joblog_live_jobs", "gauge", "Jobs that this elector holds in memory", roles=_ELECTOR),
    Metric(
        "joblog_stale_reports_total",
        "counter",
        "Reports rejected for an old lease or version",
        ("type",),
        roles=_ELECTOR,
        values={
            "type": (
                "job.due",
                "limit.granted",
                "limit.released",
                "limit.waits",
                "parent.ended",
                "parent.found",
                "run.failed",
                "run.released",
                "run.succeeded",
            )
        },
    ),
    Metric(
        "joblog_limit_grants_total",
        "counter",
        "Permits that jobs got, by kind of limit",
        ("kind",),
        roles=_ELECTOR,
        values={"kind": _LIMITS},
    ),
    Metric(
        "joblog_limit_permits_returned_total",
        "counter",
        "Jobs that gave their permits back, since no worker had room for them in time",
        roles=_ELECTOR,
    ),
    Metric(
        "joblog_limit_waiting_jobs",
        "gauge",
        "Jobs that wait for a limit, by its kind",
        ("kind",),
        roles=_ELECTOR,
        values={"kind": _LIMITS},
    ),
    Metric(
        "joblog_limit_permits",
        "gauge",
        "Permits that are out, by kind of limit; those of rates until the job starts",
        ("kind",),
        roles=_ELECTOR,
        values={"kind": _LIMITS},
    ),
    Metric("joblog_commands_rejected_total", "counter", "Commands rejected, by code", ("code",), roles=_ELECTOR),
    Metric("joblog_commands_forwarded_total", "counter", "Commands sent on to their own lane", roles=_ELECTOR),
    Metric("joblog_filter_errors_total", "counter", "Elect-state filters that raised", ("filter",), roles=_ELECTOR),
    Metric("joblog_lane_takeover_seconds", "histogram", "From assignment to a loaded lane", roles=_ELECTOR),
    Metric(
        "joblog_election_spans_left_out_total",
        "counter",
        "Spans of elections that were more than 1,000 in a second",
        roles=_ELECTOR,
    ),
    Metric(
        "joblog_bulk_commands_total",
        "counter",
        "Commands sent by bulk operations",
        ("action",),
        roles=_PROJECTOR,
        values={"action": ("requeue", "delete", "move", "set_priority")},
    ),
    Metric("joblog_queue_paused", "gauge", "Lanes in which a queue is paused", ("queue",), roles=_PROJECTOR),
    # any role
    Metric("joblog_producer_rebuilds_total", "counter", "Producers rebuilt after a doubtful commit", ("role",)),
    Metric(
        "joblog_quarantined_records_total",
        "counter",
        "Records parked with their reason: dead letters, and in the projector the table `parked`",
        ("role", "reason"),
        values={"reason": ("undecodable", "invalid_data", "unknown_type", "internal_error")},
    ),
    Metric(
        "joblog_internal_errors_total", "counter", "Unexpected exceptions after which a role started over", ("role",)
    ),
    Metric("joblog_kafka_errors_total", "counter", "Errors reported by the Kafka client", ("role", "code")),
    Metric("joblog_db_errors_total", "counter", "Postgres errors by SQLSTATE class", ("role", "sqlstate")),
    Metric("joblog_rebalances_total", "counter", "Group rebalances seen", ("role",)),
    Metric("joblog_lanes_configured", "gauge", "Lanes of the installation, as this process was told"),
    Metric("joblog_build_info", "gauge", "1; what is running", ("version", "python", "librdkafka", "role")),
    # worker
    Metric("joblog_jobs_started_total", "counter", "Runs started", ("queue", "task"), roles=_WORKER),
    Metric(
        "joblog_jobs_finished_total",
        "counter",
        "Runs ended, by outcome: succeeded, failed, released or cancelled",
        ("queue", "task", "outcome"),
        roles=_WORKER,
    ),
    Metric(
        "joblog_job_duration_seconds", "histogram", "From start to end of a run", ("queue", "task"), roles=_WORKER
    ),
    Metric("joblog_job_wait_seconds", "histogram", "From ready to start", ("queue", "task"), roles=_WORKER),
    Metric("joblog_worker_slots", "gauge", "Jobs this worker runs at once", roles=_WORKER),
    Metric("joblog_worker_slots_used", "gauge", "Jobs this worker runs now", roles=_WORKER),
    # delays
    Metric("joblog_timers_waiting", "gauge", "Timers held in memory, due within a minute", roles=_DELAYS),
    Metric("joblog_timers_fired_total", "counter", "Timers whose instant came", roles=_DELAYS),
    Metric(
        "joblog_timers_moved_total",
        "counter",
        "Timers placed into a shorter tier",
        ("tier",),
        roles=_DELAYS,
        values={"tier": ("now", "1m", "10m", "1h", "6h", "1d", "7d")},
    ),
    Metric("joblog_timer_lateness_seconds", "histogram", "From due to fired", roles=_DELAYS),
    # triggers
    Metric(
        "joblog_trigger_events_total",
        "counter",
        "Records taken from other services' topics",
        ("topic",),
        roles=_TRIGGERS,
    ),
    Metric(
        "joblog_trigger_jobs_total",
        "counter",
        "Jobs created, repeats of an event included",
        ("trigger",),
        roles=_TRIGGERS,
    ),
    Metric(
        "joblog_trigger_errors_total",
        "counter",
        "Calls of a trigger function that raised",
        ("trigger",),
        roles=_TRIGGERS,
    ),
    Metric("joblog_trigger_lag_records", "gauge", "Records not handled yet", ("topic", "partition"), roles=_TRIGGERS),
    # hooks
    Metric(
        "joblog_hook_calls_total",
        "counter",
        "Calls of hooks, by whether they returned or raised",
        ("hook", "result"),
        roles=_HOOKS,
        values={"result": ("returned", "raised")},
    ),
    Metric(
        "joblog_hook_told_timestamp_seconds",
        "gauge",
        "Broker's time of the last event of which all hooks know",
        roles=_HOOKS,
    ),
    # projector
    Metric("joblog_projection_events_total", "counter", "Events applied to Postgres", roles=_PROJECTOR),
    Metric("joblog_projection_lag_records", "gauge", "Events not applied yet", ("partition",), roles=_PROJECTOR),
    Metric(
        "joblog_projection_lag_seconds",
        "histogram",
        "From the broker's time of an event to its commit in Postgres; of each lane in a batch, its oldest event",
        roles=_PROJECTOR,
    ),
    Metric(
        "joblog_projection_applied_timestamp_seconds",
        "gauge",
        "Log time of the last applied event",
        ("partition",),
        roles=_PROJECTOR,
    ),
    Metric(
        "joblog_projection_current_timestamp_seconds",
        "gauge",
        "Everything that the lane held at this time is in Postgres",
        ("partition",),
        roles=_PROJECTOR,
    ),
    Metric(
        "joblog_batches",
        "gauge",
        "Batches that have not ended",
        ("state",),
        roles=_PROJECTOR,
        values={"state": ("Awaiting", "Processing")},
    ),
    Metric(
        "joblog_batch_oldest_timestamp_seconds",
        "gauge",
        "When the oldest batch that has not ended was created; none if there is none",
        ("state",),
        roles=_PROJECTOR,
    ),
    Metric(
        "joblog_batch_progress_timestamp_seconds",
        "gauge",
        "When something last happened in the batch that has not ended and has been silent longest",
        ("state",),
        roles=_PROJECTOR,
    ),
    Metric("joblog_projection_batch_seconds", "histogram", "One batch, from decode to commit", roles=_PROJECTOR),
    Metric(
        "joblog_parents_sought_total",
        "counter",
        "Questions of lanes about jobs that they do not know, for which others wait, by what came of them",
        ("outcome",),
        roles=_PROJECTOR,
        values={"outcome": ("found", "absent", "live", "late", "unsent")},
    ),
    Metric(
        "joblog_expired_jobs_total", "counter", "Ended jobs whose rows left Postgres", ("state",), roles=_PROJECTOR
    ),
    Metric(
        "joblog_expiry_last_run_timestamp_seconds",
        "gauge",
        "When the last pass ended that deletes expired rows",
        roles=_PROJECTOR,
    ),
    # what is there, which only the projector knows: it reads it from the tables that it keeps
    Metric(
        "joblog_jobs",
        "gauge",
        "Jobs that have not ended, by state: Awaiting, Scheduled, Enqueued, Processing",
        ("queue", "state"),
        roles=_PROJECTOR,
    ),
    Metric(
        "joblog_queue_oldest_job_timestamp_seconds",
        "gauge",
        "Since when the job waits that has been Enqueued longest; no series while none waits",
        ("queue",),
        roles=_PROJECTOR,
    ),
    Metric("joblog_workers", "gauge", "Workers that are running", roles=_PROJECTOR),
    Metric("joblog_slots", "gauge", "Slots of the workers that are running", roles=_PROJECTOR),
    Metric(
        "joblog_queue_workers",
        "gauge",
        "Running workers that serve a queue; one that serves several counts in each",
        ("queue",),
        roles=_PROJECTOR,
    ),
    Metric(
        "joblog_queue_slots",
        "gauge",
        "Slots of the running workers that serve a queue; one that serves several counts in each",
        ("queue",),
        roles=_PROJECTOR,
    ),
    # recurring
    Metric("joblog_recurring_created_total", "counter", "Occurrences whose job was created", roles=_RECURRING),
    Metric(
        "joblog_recurring_left_out_total",
        "counter",
        "Occurrences without a job, by reason",
        ("reason",),
        roles=_RECURRING,
        values={"reason": ("misfired", "skip_next", "overlap")},
    ),
    Metric("joblog_recurring_lateness_seconds", "histogram", "From due to created", roles=_RECURRING),
    Metric(
        "joblog_recurring_definitions",
        "gauge",
        "Definitions that this process looks after",
        ("paused",),
        roles=_RECURRING,
    ),
    Metric(
        "joblog_recurring_errors",
        "gauge",
        "Definitions with a schedule or zone that cannot be used",
        roles=_RECURRING,
    ),
    Metric(
        "joblog_recurring_partitions",
        "gauge",
        "Partitions of `recurring` that this process has",
        roles=_RECURRING,
    ),
    # outbox
    Metric("joblog_outbox_relayed_total", "counter", "Rows of the outbox put into the log", roles=_OUTBOX),
    Metric(
        "joblog_outbox_lag_seconds",
        "histogram",
        "From a row's insert to its command in the log; a transaction that commits late counts with it",
        roles=_OUTBOX,
    ),
    Metric(
        "joblog_outbox_rows",
        "gauge",
        "Rows that wait to be relayed; more than 100,000 count as 100,001",
        roles=_OUTBOX,
    ),
    Metric(
        "joblog_outbox_oldest_row_timestamp_seconds",
        "gauge",
        "Since when the first row waits; the present while none does",
        roles=_OUTBOX,
    ),
    Metric("joblog_outbox_parked_rows", "gauge", "Rows that are parked, since Kafka cannot take them", roles=_OUTBOX),
    Metric("joblog_outbox_parked_total", "counter", "Rows parked, since Kafka cannot take them", roles=_OUTBOX),
)


class Meters:
    """The metrics of one process, in a registry of its own; those of other roles are not exported."""

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        role: str | None = None,
        queues_max: int = QUEUES_MAX,
        tasks_max: int = TASKS_MAX,
    ) -> None:
        """Without a role, all metrics are exported, and none starts at 0 but those without labels."""
        self.registry = registry or CollectorRegistry()
        names = {"queue": LabelCap(queues_max), "task": LabelCap(tasks_max)}
        #: Of metrics that begin with the labels queue and task.
        self._pairs = LabelCap(PAIRS_PER_NAME * max(queues_max, tasks_max))
        self._all: dict[str, Counter | Gauge | Histogram] = {}
        self._caps: dict[str, tuple[LabelCap, ...]] = {}
        self._replaced: dict[str, set[tuple[str, ...]]] = {}
        for row in METRICS:
            self._all[row.name] = self._made(row, role)
            self._caps[row.name] = tuple(names.get(label) or _cap_of(label) for label in row.labels)
            if role is not None and row.labels and (not row.roles or role in row.roles):
                known = {"role": (role,), **row.values}
                for labels in product(*(known.get(label, ()) for label in row.labels)):
                    self.show(row.name, *labels)

    def _made(self, row: Metric, role: str | None) -> Counter | Gauge | Histogram:
        registry = self.registry if role is None or not row.roles or role in row.roles else None
        match row.kind:
            case "counter":
                return Counter(row.name, row.help, row.labels, registry=registry)
            case "gauge":
                return Gauge(row.name, row.help, row.labels, registry=registry)
            case "histogram":
                return Histogram(row.name, row.help, row.labels, registry=registry, buckets=row.buckets)

    def inc(self, name: str, *labels: str, by: float = 1) -> None:
        metric = self._of(name, labels)
        assert isinstance(metric, Counter | Gauge)
        metric.inc(by)

    def set(self, name: str, value: float, *labels: str) -> None:
        metric = self._of(name, labels)
        assert isinstance(metric, Gauge)
        metric.set(value)

    def replace(
        self,
        name: str,
        rows: Iterable[tuple[tuple[str, ...], float]],
        merge: Callable[[float, float], float] = float.__add__,
    ) -> None:
        """Set a gauge with labels to these values and drop its other series; `merge` joins those beyond a cap."""
        gauge = self._all[name]
        assert isinstance(gauge, Gauge)
        values: dict[tuple[str, ...], float] = {}
        for labels, value in rows:
            shown = self._shown(name, labels)
            values[shown] = merge(values[shown], value) if shown in values else value
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        for labels in self._replaced.get(name, frozenset()) - values.keys():
            gauge.remove(*labels)
        self._replaced[name] = set(values)

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        metric = self._of(name, labels)
        assert isinstance(metric, Histogram)
        metric.observe(seconds)

    def observe_all(
        self, name: str, seconds: Collection[float], *labels: str, trace: tuple[float, str] | None = None
    ) -> None:
        """`trace`: one of the observations, and the id of the trace that shows what happened."""
        metric = self._of(name, labels)
        assert isinstance(metric, Histogram)
        metric.observe_all(seconds, None if trace is None else (trace[0], {"trace_id": trace[1]}))

    def show(self, name: str, *labels: str) -> None:
        """Export a series of which nothing has been counted yet, as 0."""
        self._of(name, labels)

    def _of(self, name: str, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        metric = self._all[name]
        return metric.labels(*self._shown(name, labels)) if labels else metric

    def _shown(self, name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        shown = tuple(cap(label) for label, cap in zip(labels, self._caps[name], strict=True))
        if name in _PAIRED and self._pairs("\0".join(shown[:2])) == OTHER:
            return shown[0], OTHER, *shown[2:]
        return shown


_PAIRED: Final = frozenset(row.name for row in METRICS if row.labels[:2] == ("queue", "task"))


def _cap_of(label: str) -> LabelCap:
    return LabelCap(PARTITIONS_MAX if label == "partition" else VALUES_MAX)
