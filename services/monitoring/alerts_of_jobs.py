"""Alerts on what users feel: jobs that wait, fail, or have nobody who runs them."""

from typing import Final

from joblog.services.monitoring.alert import Alert
from joblog.services.monitoring.records import FAILURE_BUDGET, WAIT_BUDGET, WAIT_S

#: A budget for 30 days that burns 14.4 times too fast loses 2 % in an hour; 6 times, 5 % in six hours.
FAST: Final = 14.4
SLOW: Final = 6
#: A failure in a queue with few jobs is no trend.
_MANY: Final = 'and on (queue) sum by (queue) (increase(joblog_jobs_ended_total{state=~"Succeeded|Failed"}[1h])) > 20'

_WAITS = 'joblog_job_wait_seconds_{}{{{}queue="q",task="t"}}'
_STARTED = _WAITS.format("count", "")
_IN_TIME = _WAITS.format("bucket", f'le="{WAIT_S}",')
_FAILED = 'joblog_jobs_ended_total{queue="q",task="t",state="Failed"}'
_SUCCEEDED = 'joblog_jobs_ended_total{queue="q",task="t",state="Succeeded"}'
_QUEUE = {"queue": "q"}
_WAITING_HELP = (
    "Start more workers for the queue, or give them more slots. If one task holds all slots, give it a queue "
    "of its own. If the elector is the limit, spread the queue over lanes: `joblog queue configure`."
)
_FAILING_HELP = (
    "Fix the cause, which is usually one exception of one task after a deployment, then "
    "`joblog job requeue ID` for what failed."
)


def _burns(what: str, long: str, short: str, factor: float, budget: float) -> str:
    limit = f"{factor * budget:g}"
    return f"joblog:{what}:ratio_rate{long} > {limit} and joblog:{what}:ratio_rate{short} > {limit}"


JOB_ALERTS: Final = (
    Alert(
        "JoblogWaitBudgetBurnsFast",
        "critical",
        _burns("job_wait_slow", "1h", "5m", FAST, WAIT_BUDGET),
        "2m",
        "Jobs of the queue {{ $labels.queue }} start late",
        f"For an hour, and still, more than {FAST * WAIT_BUDGET:.0%} of the runs started later than "
        f"{float(WAIT_S):g} s after they were ready; {WAIT_BUDGET:.0%} may.",
        "`joblog queue list` and `joblog workers`: are workers missing, or are all slots busy? The dashboard "
        "`Joblog: queue and task` shows which task takes the time.",
        _WAITING_HELP,
        {_STARTED: "0+60x120", _IN_TIME: "0+30x120"},
        {_STARTED: "0+60x120", _IN_TIME: "0+60x120"},
        _QUEUE,
        minutes=100,
    ),
    Alert(
        "JoblogWaitBudgetBurnsSlowly",
        "warning",
        _burns("job_wait_slow", "6h", "30m", SLOW, WAIT_BUDGET),
        "15m",
        "Jobs of the queue {{ $labels.queue }} have started late for hours",
        f"For six hours, and still, more than {SLOW * WAIT_BUDGET:.0%} of the runs started later than "
        f"{float(WAIT_S):g} s after they were ready; {WAIT_BUDGET:.0%} may.",
        "As for JoblogWaitBudgetBurnsFast; compare the time of day with the load on the dashboard.",
        _WAITING_HELP,
        {_STARTED: "0+60x480", _IN_TIME: "0+54x480"},
        {_STARTED: "0+60x480", _IN_TIME: "0+59x480"},
        _QUEUE,
        minutes=420,
    ),
    Alert(
        "JoblogOldestJobTooOld",
        "warning",
        "time() - min by (queue) (joblog_queue_oldest_job_timestamp_seconds) > 900 "
        "unless on (queue) joblog_queue_paused > 0",
        "5m",
        "A job of the queue {{ $labels.queue }} has waited for more than 15 minutes",
        "A job is Enqueued and was not given to a worker for 15 minutes, and its queue is not paused. Runs that "
        "never start are in no histogram of waiting times, so this alert is the one that sees them.",
        "`joblog job list --state Enqueued --queue QUEUE` and `joblog doctor`: it names tasks that no worker knows.",
        "Start workers that know the task, or more of them. A job of low priority may wait behind newer ones: give "
        "it another queue.",
        {'joblog_queue_oldest_job_timestamp_seconds{queue="q"}': "0+0x60"},
        {
            'joblog_queue_oldest_job_timestamp_seconds{queue="q"}': "0+60x60",
            'joblog_queue_oldest_job_timestamp_seconds{queue="paused"}': "0+0x60",
            'joblog_queue_paused{queue="paused"}': "1+0x60",
        },
        _QUEUE,
    ),
    Alert(
        "JoblogFailureBudgetBurnsFast",
        "critical",
        f"{_burns('jobs_failed', '1h', '5m', FAST, FAILURE_BUDGET)} {_MANY}",
        "2m",
        "Many jobs of the queue {{ $labels.queue }} fail",
        f"For an hour, and still, more than {FAST * FAILURE_BUDGET:.0%} of the jobs that ended had failed with all "
        f"their retries; {FAILURE_BUDGET:.0%} may.",
        "`joblog job list --state Failed --queue QUEUE` has the exceptions; `joblog job show ID` the whole history.",
        _FAILING_HELP,
        {_FAILED: "0+6x120", _SUCCEEDED: "0+6x120"},
        {_FAILED: "0+1x120", _SUCCEEDED: "0+99x120"},
        _QUEUE,
        minutes=100,
    ),
    Alert(
        "JoblogFailureBudgetBurnsSlowly",
        "warning",
        f"{_burns('jobs_failed', '6h', '30m', SLOW, FAILURE_BUDGET)} {_MANY}",
        "15m",
        "Jobs of the queue {{ $labels.queue }} have failed for hours",
        f"For six hours, and still, more than {SLOW * FAILURE_BUDGET:.0%} of the jobs that ended had failed with all "
        f"their retries; {FAILURE_BUDGET:.0%} may.",
        "As for JoblogFailureBudgetBurnsFast.",
        _FAILING_HELP,
        {_FAILED: "0+2x480", _SUCCEEDED: "0+8x480"},
        {_FAILED: "0+1x480", _SUCCEEDED: "0+99x480"},
        _QUEUE,
        minutes=420,
    ),
    Alert(
        "JoblogNoWorkers",
        "critical",
        "sum(joblog_workers) == 0",
        "5m",
        "No worker runs",
        "The log knows no worker that is alive; no job of any queue can start. Nothing is lost, all of it waits.",
        "`joblog workers` says when each was last heard of, and why it left; then the logs of the workers.",
        "Start workers. If they run and are not seen, they do not reach Kafka: `joblog doctor` on their machine.",
        {"joblog_workers": "0+0x60"},
        {"joblog_workers": "2+0x60"},
    ),
    Alert(
        "JoblogQueueWithoutWorkers",
        "critical",
        'sum by (queue) (joblog_jobs{state="Enqueued"}) > 0 unless on (queue) joblog_queue_workers > 0',
        "5m",
        "Jobs wait in the queue {{ $labels.queue }}, which no worker serves",
        "There are jobs in this queue, and no running worker has it among its queues. They wait until one has.",
        "`joblog queue list`, `joblog workers`: which queues are served? A mistyped name of a queue looks like this.",
        "Start a worker with `--queues` that names it, or `joblog job delete` the jobs and send them "
        "to the right queue.",
        {'joblog_jobs{queue="q",state="Enqueued"}': "5+0x60", 'joblog_queue_workers{queue="other_one"}': "1+0x60"},
        {'joblog_jobs{queue="q",state="Enqueued"}': "5+0x60", 'joblog_queue_workers{queue="q"}': "1+0x60"},
        _QUEUE,
    ),
    Alert(
        "JoblogWorkersSaturated",
        "warning",
        # On average: a slot is free for a moment between two runs, and one look at it must not begin anew.
        "sum(avg_over_time(joblog_worker_slots_used[15m])) / sum(avg_over_time(joblog_worker_slots[15m])) > 0.95",
        "15m",
        "All slots of all workers have been busy for half an hour",
        "More work comes than the workers can do, or runs hang. Jobs begin to wait.",
        "The dashboard `Joblog: queue and task`: is the number of starts high, or are runs longer than usual?",
        'Start more workers. If runs hang, give the task a time-out, and `isolation="process"` so that it can end '
        "a run.",
        {"joblog_worker_slots_used": "4+0x90", "joblog_worker_slots": "4+0x90"},
        {"joblog_worker_slots_used": "2+0x90", "joblog_worker_slots": "4+0x90"},
        minutes=60,
    ),
    Alert(
        "JoblogWorkersLost",
        "warning",
        "sum(increase(joblog_workers_lost_total[15m])) > 0",
        "0m",
        "A worker was lost",
        "A worker was silent for longer than its lease: it was killed, hangs, or does not reach Kafka. Its jobs were "
        "elected again.",
        "`joblog workers` names it; its log, and the kernel's for processes killed for their memory. "
        "`joblog_jobs_lost_total` has the tasks that ran there.",
        "One loss in a deployment is harmless. If it comes again: more memory, or the job that kills its workers; "
        "Joblog fails a job whose worker was lost more than `lost_max` times.",
        {"joblog_workers_lost_total": "0+0x20 1+0x40"},
        {"joblog_workers_lost_total": "3+0x60"},
    ),
    Alert(
        "JoblogDelaysLate",
        "warning",
        "histogram_quantile(0.99, sum by (le) (rate(joblog_timer_lateness_seconds_bucket[5m]))) > 5",
        "5m",
        "Scheduled jobs wake late",
        "One in a hundred timers fired more than 5 s after its instant: retries and scheduled jobs are late.",
        "The dashboard `Joblog: internals`, row delays; the delays process's CPU; errors of Kafka's client there.",
        "Start another delays process: they share the lanes. After an outage it catches up by itself.",
        {
            'joblog_timer_lateness_seconds_bucket{le="5.0"}': "0+10x60",
            'joblog_timer_lateness_seconds_bucket{le="10.0"}': "0+60x60",
            'joblog_timer_lateness_seconds_bucket{le="+Inf"}': "0+60x60",
        },
        {
            'joblog_timer_lateness_seconds_bucket{le="0.1"}': "0+60x60",
            'joblog_timer_lateness_seconds_bucket{le="+Inf"}': "0+60x60",
        },
    ),
    Alert(
        "JoblogTimersMissing",
        "warning",
        "sum(increase(joblog_jobs_overdue_total[10m])) > 0",
        "0m",
        "Scheduled jobs were started without their timer",
        "Timers did not come within `elector.overdue_s`, and the electors started the jobs themselves: the delays "
        "process is down or far behind. No job is lost.",
        "Does a delays process run (`up`), and is it ready (`/readyz`)? `joblog doctor` shows its backlog.",
        "Start the delays process.",
        {"joblog_jobs_overdue_total": "0+1x60"},
        {"joblog_jobs_overdue_total": "7+0x60"},
    ),
)
