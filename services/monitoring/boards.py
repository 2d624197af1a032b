"""The dashboards: overview, queue and task, a job's way in time, internals."""

from typing import Final

from joblog.services.monitoring.board import Board, Panel, Row, mean, quantile, quantiles, rate
from joblog.services.monitoring.board_of_internals import INTERNALS

_FAILED: Final = 'joblog_jobs_ended_total{state="Failed"}'
_ENDED: Final = 'joblog_jobs_ended_total{state=~"Succeeded|Failed"}'
_ENQUEUED: Final = 'sum by (queue) (joblog_jobs{state="Enqueued"})'
_FAILURE_RATIO: Final = f"{rate(_FAILED)} / ({rate(_ENDED)} > 0)"
_DRAIN: Final = f"{_ENQUEUED} / ({rate('joblog_jobs_ended_total', 'queue')} > 0)"
_SINCE_BATCH: Final = "time() - min by (state) (joblog_batch_{}_timestamp_seconds)"
_OLDEST: Final = "time() - min by (queue) (joblog_queue_oldest_job_timestamp_seconds)"

OVERVIEW: Final = Board(
    "joblog-overview",
    "Joblog: overview",
    "Whether jobs go well: how many come and end, how long they wait, and who works.",
    (
        Row(
            "Now",
            (
                Panel("Enqueued", "Jobs that are ready and wait for a slot.", "short",
                      (('sum(joblog_jobs{state="Enqueued"})', "Enqueued"),), is_number=True),
                Panel("Processing", "Jobs that workers have.", "short",
                      (('sum(joblog_jobs{state="Processing"})', "Processing"),), is_number=True),
                Panel("Workers", "Workers that are running, and their slots.", "short",
                      (("sum(joblog_workers)", "workers"), ("sum(joblog_slots)", "slots")), is_number=True),
                Panel("Failed of ended", "Share of the jobs that ended as Failed, with all retries.", "percentunit",
                      ((_FAILURE_RATIO, "Failed"),), is_number=True),
            ),
        ),
        Row(
            "Jobs",
            (
                Panel("Created and ended", "Jobs a second that were created, and that came to a final state.", "ops",
                      ((rate("joblog_jobs_created_total"), "created"),
                       (rate("joblog_jobs_ended_total", "state"), "{{state}}"))),
                Panel("Jobs by state", "Jobs that have not ended.", "short",
                      (("sum by (state) (joblog_jobs)", "{{state}}"),), is_stacked=True),
                Panel("Waiting time", "From ready to start.", "s", quantiles("joblog_job_wait_seconds")),
                Panel("Oldest waiting job", "How long the job has waited that has been Enqueued longest.", "s",
                      ((_OLDEST, "{{queue}}"),)),
            ),
        ),
        Row(
            "Batches",
            (
                Panel("Open batches", "Batches that have not ended.", "short",
                      (("sum by (state) (joblog_batches)", "{{state}}"),), is_stacked=True),
                Panel("Batches created and ended", "Batches a second; each end, if they went on after one.", "ops",
                      ((rate("joblog_batches_created_total"), "created"),
                       (rate("joblog_batches_cancelled_total"), "cancelled"),
                       (rate("joblog_batches_ended_total", "state"), "{{state}}"))),
                Panel("Oldest batch", "Since the creation of the oldest batch that has not ended.", "s",
                      ((_SINCE_BATCH.format("oldest"), "{{state}}"),)),
                Panel("Longest without progress", "Since something last happened in the most silent open batch.", "s",
                      ((_SINCE_BATCH.format("progress"), "{{state}}"),)),
            ),
        ),
        Row(
            "Workers",
            (
                Panel("Slots in use", "Share of all slots in which a job runs.", "percentunit",
                      (("sum(joblog_worker_slots_used) / sum(joblog_worker_slots)", "in use"),)),
                Panel("Runs by outcome", "Runs a second that ended.", "ops",
                      ((rate("joblog_jobs_finished_total", "outcome"), "{{outcome}}"),)),
                Panel("Lanes", "Lanes with an owner, those set aside, and how many there are.", "short",
                      (("sum(joblog_lanes)", "with an owner"), ("sum(joblog_lanes_aside)", "set aside"),
                       ("max(joblog_lanes_configured)", "configured"))),
                Panel("Dead letters", "Records a second that were parked, by reason.", "ops",
                      ((rate("joblog_quarantined_records_total", "reason"), "{{reason}}"),)),
            ),
        ),
    ),
)  # fmt: skip

QUEUES: Final = Board(
    "joblog-queues",
    "Joblog: queue and task",
    "One queue, or one task: what comes, what waits, how long it runs, and what fails.",
    (
        Row(
            "Queue",
            (
                Panel("Jobs by queue and state", "Jobs that have not ended.", "short",
                      (("sum by (queue, state) (joblog_jobs)", "{{queue}} {{state}}"),), is_stacked=True),
                Panel("Oldest waiting job", "How long the job has waited that has been Enqueued longest.", "s",
                      ((_OLDEST, "{{queue}}"),)),
                Panel("Workers", "Running workers that serve the queue.", "short",
                      (("sum by (queue) (joblog_queue_workers)", "{{queue}}"),)),
                Panel("Slots", "Slots of the workers that serve the queue; they may be shared with others.", "short",
                      (("sum by (queue) (joblog_queue_slots)", "{{queue}}"),)),
                Panel("Paused", "In how many lanes the queue is paused.", "short",
                      (("sum by (queue) (joblog_queue_paused)", "{{queue}}"),)),
                Panel("Bulk operations", "Commands that bulk operations send a second.", "ops",
                      ((rate("joblog_bulk_commands_total", "action"), "{{action}}"),)),
                Panel("Waiting time, 95 %", "From ready to start, by queue.", "s",
                      ((quantile(0.95, "joblog_job_wait_seconds", "queue"), "{{queue}}"),)),
                Panel("Time to drain", "How long the waiting jobs take at the present rate.", "s",
                      ((_DRAIN, "{{queue}}"),)),
            ),
        ),
        Row(
            "Task",
            (
                Panel("Created", "Jobs created a second.", "ops",
                      ((rate("joblog_jobs_created_total", "task"), "{{task}}"),)),
                Panel("Started", "Runs started a second, retries among them.", "ops",
                      ((rate("joblog_jobs_started_total", "task"), "{{task}}"),)),
                Panel("Run time, 95 %", "From start to end of a run.", "s",
                      ((quantile(0.95, "joblog_job_duration_seconds", "task"), "{{task}}"),)),
                Panel("Failed runs", "Runs a second that failed, whether they are retried or not.", "ops",
                      ((rate('joblog_jobs_finished_total{outcome="failed"}', "task"), "{{task}}"),)),
                Panel("Failed jobs", "Jobs a second that ended as Failed, with all retries.", "ops",
                      ((rate(_FAILED, "task"), "{{task}}"),)),
                Panel("Lost runs", "Runs a second that ended with their worker.", "ops",
                      ((rate("joblog_jobs_lost_total", "task"), "{{task}}"),)),
            ),
        ),
    ),
)  # fmt: skip

JOURNEY: Final = Board(
    "joblog-journey",
    "Joblog: a job's way in time",
    "Where the time of a job goes: waiting, running, retries, and all of it from end to end.",
    (
        Row(
            "Stages",
            (
                Panel("Average by stage", "How long each stage takes on average.", "s",
                      ((mean("joblog_job_wait_seconds"), "waiting"), (mean("joblog_job_duration_seconds"), "running"),
                       (mean("joblog_job_end_to_end_seconds"), "end to end"))),
                Panel("Waiting", "From ready to start.", "s", quantiles("joblog_job_wait_seconds")),
                Panel("Running", "From start to end of a run.", "s", quantiles("joblog_job_duration_seconds")),
                Panel("End to end", "From a job's creation to its final state, with delays and retries.", "s",
                      quantiles("joblog_job_end_to_end_seconds")),
            ),
        ),
        Row(
            "Detours",
            (
                Panel("Retries", "Automatic retries a second.", "ops",
                      ((rate("joblog_job_retries_total", "task"), "{{task}}"),)),
                Panel("Runs for each job", "Runs that started for each job that ended; 1 is a job without retries.",
                      "short", ((f"{rate('joblog_jobs_started_total')} / ({rate('joblog_jobs_ended_total')} > 0)",
                                 "runs"),)),
                Panel("Scheduled jobs", "Jobs that wait for their instant or their retry.", "short",
                      (('sum by (queue) (joblog_jobs{state="Scheduled"})', "{{queue}}"),)),
                Panel("Lateness of timers", "From the instant of a scheduled job to its timer.", "s",
                      quantiles("joblog_timer_lateness_seconds")),
            ),
        ),
    ),
)  # fmt: skip

BOARDS: Final = (OVERVIEW, QUEUES, JOURNEY, INTERNALS)
