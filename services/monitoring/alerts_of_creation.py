"""Alerts on the processes that create jobs: from recurring definitions, events of other services, and outboxes."""

from typing import Final

from joblog.services.monitoring.alert import Alert

CREATION_ALERTS: Final = (
    Alert(
        "JoblogRecurringLate",
        "warning",
        "histogram_quantile(0.9, sum by (le) (rate(joblog_recurring_lateness_seconds_bucket[10m]))) > 30",
        "5m",
        "Recurring jobs are created late",
        "One in ten occurrences became a job more than 30 s after its instant.",
        "The log and `/readyz` of the recurring processes: do they wait for Kafka? The dashboard `Joblog: "
        "internals`, row recurring jobs: has each partition a process?",
        "Start a recurring process; two or more share the definitions. After an outage, missed occurrences are "
        "caught up as each definition's misfire mode says, and count as late.",
        {
            'joblog_recurring_lateness_seconds_bucket{le="30"}': "0+1x60",
            'joblog_recurring_lateness_seconds_bucket{le="60"}': "0+6x60",
            'joblog_recurring_lateness_seconds_bucket{le="+Inf"}': "0+6x60",
        },
        {
            'joblog_recurring_lateness_seconds_bucket{le="0.5"}': "0+6x60",
            'joblog_recurring_lateness_seconds_bucket{le="+Inf"}': "0+6x60",
        },
    ),
    Alert(
        "JoblogRecurringUnusable",
        "warning",
        "sum(joblog_recurring_errors) > 0",
        "5m",
        "Recurring definitions cannot be used",
        "A definition's schedule or time zone cannot be evaluated, so no jobs are created from it; the others go on.",
        "`joblog recurring list` names the definitions with the reason.",
        "`joblog recurring edit NAME`; for an unknown zone install the time zone data (`pip install tzdata`).",
        {"joblog_recurring_errors": "1+0x60"},
        {"joblog_recurring_errors": "0+0x60"},
    ),
    Alert(
        "JoblogTriggersBehind",
        "warning",
        "sum by (topic) (min_over_time(joblog_trigger_lag_records[10m])) > 100",
        "5m",
        "Events on {{ $labels.topic }} wait for their triggers",
        "For ten minutes more than a hundred events have been waiting to become jobs: trigger functions are slow or "
        "raise again and again, or too few processes run.",
        "The log of the triggers; `joblog_trigger_errors_total` by function; the dashboard `Joblog: internals`, row "
        "triggers.",
        "Start more trigger processes, up to one for each partition. A function that waits for something else should "
        "leave that to the job.",
        {'joblog_trigger_lag_records{topic="uploads",partition="0"}': "500+0x60"},
        {'joblog_trigger_lag_records{topic="uploads",partition="0"}': "500 0 500 0 500 0+0x60"},
        {"topic": "uploads"},
    ),
    Alert(
        "JoblogOutboxLate",
        "critical",
        "time() - min(joblog_outbox_oldest_row_timestamp_seconds) > 60",
        "1m",
        "Rows of an outbox have been waiting for more than a minute",
        "Transactions have committed jobs that are not in the log, and so do not run: the relay cannot reach Kafka, "
        "or is too slow. Nothing is lost.",
        "`joblog outbox status`; the relay's `/readyz` and log.",
        "Make Kafka well; the relay catches up by itself with tens of thousands of rows a second. If it is down "
        "(JoblogTargetDown), start it again.",
        {"joblog_outbox_oldest_row_timestamp_seconds": "0+0x60"},
        {"joblog_outbox_oldest_row_timestamp_seconds": "0+60x60"},
    ),
    Alert(
        "JoblogOutboxParked",
        "warning",
        "max(joblog_outbox_parked_rows) > 0",
        "0m",
        "Rows of an outbox are parked",
        "Kafka cannot take what they hold: they were written with another number of lanes, or are too large. Their "
        "jobs do not exist; the other rows go on.",
        "`joblog outbox list` names the reasons.",
        "Correct the settings of the service that wrote them, or raise the topic's `max.message.bytes`; then `joblog "
        "outbox retry --all`, or `joblog outbox discard ID` and create the job again.",
        {"joblog_outbox_parked_rows": "1+0x60"},
        {"joblog_outbox_parked_rows": "0+0x60"},
    ),
)
