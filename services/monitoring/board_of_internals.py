"""The dashboard of what Joblog's own processes do."""

from typing import Final

from joblog.services.monitoring.board import Board, Panel, Row, quantiles, rate

#: It happens so rarely that most windows have none.
_TAKEOVER: Final = (
    "sum by (instance) (joblog_lane_takeover_seconds_sum) / sum by (instance) (joblog_lane_takeover_seconds_count)"
)

INTERNALS: Final = Board(
    "joblog-internals",
    "Joblog: internals",
    "Electors, delays and projectors: transactions, lanes, timers, how current Postgres is, and errors.",
    (
        Row(
            "Elector",
            (
                Panel("Inputs and events", "Commands and reports decided, and events written, a second.", "ops",
                      ((rate("joblog_election_inputs_total"), "inputs"),
                       (rate("joblog_log_events_total"), "events"))),
                Panel("Transactions", "Transactions a second by result.", "ops",
                      ((rate("joblog_transactions_total", "result"), "{{result}}"),)),
                Panel("Transaction time", "From begin to commit.", "s",
                      quantiles("joblog_transaction_duration_seconds")),
                Panel("Lanes by elector", "Lanes that each elector owns, and those it has set aside.", "short",
                      (("sum by (instance) (joblog_lanes)", "{{instance}}"),
                       ("sum by (reason) (joblog_lanes_aside)", "aside: {{reason}}"))),
                Panel("Take-over", "From the assignment of lanes to their being loaded, on average.", "s",
                      ((_TAKEOVER, "{{instance}}"),)),
                Panel("Jobs in memory", "Jobs that each elector holds.", "short",
                      (("sum by (instance) (joblog_live_jobs)", "{{instance}}"),)),
                Panel("Rejected", "Commands rejected a second, by code, and reports that came too late.", "ops",
                      ((rate("joblog_commands_rejected_total", "code"), "{{code}}"),
                       (rate("joblog_stale_reports_total", "type"), "stale {{type}}"))),
                Panel("Detours of commands", "Commands sent on to their own lane, and errors of filters.", "ops",
                      ((rate("joblog_commands_forwarded_total"), "forwarded"),
                       (rate("joblog_filter_errors_total", "filter"), "filter {{filter}}"))),
                Panel("Lost workers, late jobs", "Workers that were lost, and jobs elected without timer.", "ops",
                      ((rate("joblog_workers_lost_total"), "workers lost"),
                       (rate("joblog_jobs_overdue_total"), "without timer"))),
                Panel("Traces", "Spans of elections that were left out, since there were too many.", "ops",
                      ((rate("joblog_election_spans_left_out_total"), "left out"),)),
                Panel("Jobs nobody serves", "Jobs in lanes that the settings do not serve for their queue.", "short",
                      (("sum by (queue) (joblog_unserved_jobs)", "{{queue}}"),)),
            ),
        ),
        Row(
            "Delays",
            (
                Panel("Timers in memory", "Timers due within a minute.", "short",
                      (("sum(joblog_timers_waiting)", "timers"),)),
                Panel("Timers", "Timers a second that fired, or moved to a shorter tier.", "ops",
                      ((rate("joblog_timers_fired_total"), "fired"),
                       (rate("joblog_timers_moved_total", "tier"), "to {{tier}}"))),
                Panel("Lateness", "From due to fired.", "s", quantiles("joblog_timer_lateness_seconds")),
            ),
        ),
        Row(
            "Projector",
            (
                Panel("Events applied", "Events a second written to Postgres.", "ops",
                      ((rate("joblog_projection_events_total"), "events"),)),
                Panel("Lag", "From the broker's time of a batch's oldest event to its commit.", "s",
                      quantiles("joblog_projection_lag_seconds")),
                Panel("Age of what is shown", "Time since everything in a lane was in Postgres.", "s",
                      (("time() - min by (partition) (joblog_projection_current_timestamp_seconds)",
                        "lane {{partition}}"),)),
                Panel("Age of the last event", "Time since the last event of a lane, which may be idle.", "s",
                      (("time() - max by (partition) (joblog_projection_applied_timestamp_seconds)",
                        "lane {{partition}}"),)),
                Panel("Events behind", "Events that are not applied yet.", "short",
                      (("sum by (partition) (joblog_projection_lag_records)", "lane {{partition}}"),)),
                Panel("Batch time", "One batch, from decode to commit.", "s",
                      quantiles("joblog_projection_batch_seconds")),
                Panel("Expired", "Ended jobs a second whose rows left Postgres, by state.", "ops",
                      ((rate("joblog_expired_jobs_total", "state"), "{{state}}"),)),
                Panel("Age of the last expiry", "Time since rows were last looked for that have expired.", "s",
                      (("time() - max(joblog_expiry_last_run_timestamp_seconds)", "last pass"),)),
            ),
        ),
        Row(
            "Recurring jobs",
            (
                Panel("Occurrences", "Occurrences a second that became jobs, and others by reason.", "ops",
                      ((rate("joblog_recurring_created_total"), "jobs"),
                       (rate("joblog_recurring_left_out_total", "reason"), "{{reason}}"))),
                Panel("Lateness", "From the instant of an occurrence to its job.", "s",
                      quantiles("joblog_recurring_lateness_seconds")),
                Panel("Definitions", "Definitions that are looked after, and those that cannot be used.", "short",
                      (("sum by (paused) (joblog_recurring_definitions)", "paused: {{paused}}"),
                       ("sum(joblog_recurring_errors)", "not usable"))),
                Panel("Partitions", "Partitions of the topic `recurring` that each process looks after.", "short",
                      (("sum by (instance) (joblog_recurring_partitions)", "{{instance}}"),)),
            ),
        ),
        Row(
            "Triggers",
            (
                Panel("Events", "Records a second taken from other services' topics.", "ops",
                      ((rate("joblog_trigger_events_total", "topic"), "{{topic}}"),)),
                Panel("Jobs", "Jobs a second created by each trigger, repeats of an event included.", "ops",
                      ((rate("joblog_trigger_jobs_total", "trigger"), "{{trigger}}"),)),
                Panel("Events behind", "Records of other services' topics that are not handled yet.", "short",
                      (("sum by (topic) (joblog_trigger_lag_records)", "{{topic}}"),)),
                Panel("Functions that raised", "Calls a second of a trigger function that raised.", "ops",
                      ((rate("joblog_trigger_errors_total", "trigger"), "{{trigger}}"),)),
            ),
        ),
        Row(
            "Outbox",
            (
                Panel("Rows", "Rows a second put into the log, and those that were parked.", "ops",
                      ((rate("joblog_outbox_relayed_total"), "relayed"),
                       (rate("joblog_outbox_parked_total"), "parked"))),
                Panel("Lateness", "From the insert of a row to its command in the log.", "s",
                      quantiles("joblog_outbox_lag_seconds")),
                Panel("Rows that wait", "Rows to be relayed, and parked ones. More than 100,000 are not counted.",
                      "short", (("max(joblog_outbox_rows)", "waiting"),
                                ("max(joblog_outbox_parked_rows)", "parked"))),
                Panel("Oldest row", "How long the first row has been waiting.", "s",
                      (("time() - min(joblog_outbox_oldest_row_timestamp_seconds)", "oldest"),)),
            ),
        ),
        Row(
            "Errors",
            (
                Panel("Kafka", "Errors a second reported by Kafka's client.", "ops",
                      ((rate("joblog_kafka_errors_total", "role, code"), "{{role}} {{code}}"),)),
                Panel("Postgres", "Errors a second, by class.", "ops",
                      ((rate("joblog_db_errors_total", "sqlstate"), "{{sqlstate}}"),)),
                Panel("Rebalances", "How often groups gave partitions anew, a second.", "ops",
                      ((rate("joblog_rebalances_total", "role"), "{{role}}"),)),
                Panel("Starting over", "Producers made anew, fencing, and unexpected exceptions, a second.", "ops",
                      ((rate("joblog_producer_rebuilds_total", "role"), "producers {{role}}"),
                       (rate("joblog_fenced_total"), "fenced"),
                       (rate("joblog_internal_errors_total", "role"), "exceptions {{role}}"))),
                Panel("Versions", "What is running.", "short",
                      (("count by (role, version) (joblog_build_info)", "{{role}} {{version}}"),)),
            ),
        ),
    ),
)  # fmt: skip
