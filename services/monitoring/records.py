"""Recording rules: how much of the error budgets is spent, over the windows that alerts compare."""

from dataclasses import dataclass
from typing import Final

from joblog.services.monitoring.promql import checked

#: Runs that start later than this after they were ready are slow; a bound of the histogram's buckets.
WAIT_S: Final = "30.0"
#: How many runs may be slow, and how many ended jobs may have failed.
WAIT_BUDGET: Final = 0.01
FAILURE_BUDGET: Final = 0.02
WINDOWS: Final = ("5m", "30m", "1h", "6h")


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule."""

    name: str
    expr: str


def _slow(window: str) -> Record:
    started = f"sum by (queue) (rate(joblog_job_wait_seconds_count[{window}]))"
    in_time = f'sum by (queue) (rate(joblog_job_wait_seconds_bucket{{le="{WAIT_S}"}}[{window}]))'
    return Record(f"joblog:job_wait_slow:ratio_rate{window}", checked(f"1 - {in_time} / ({started} > 0)"))


def _failed(window: str) -> Record:
    failed = f'sum by (queue) (rate(joblog_jobs_ended_total{{state="Failed"}}[{window}]))'
    ended = f'sum by (queue) (rate(joblog_jobs_ended_total{{state=~"Succeeded|Failed"}}[{window}]))'
    return Record(f"joblog:jobs_failed:ratio_rate{window}", checked(f"{failed} / ({ended} > 0)"))


RECORDS: Final = (*map(_slow, WINDOWS), *map(_failed, WINDOWS))
