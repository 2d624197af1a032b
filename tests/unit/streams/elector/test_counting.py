"""What a committed turn is counted as."""

from joblog.streams.contract.states import State
from joblog.streams.elector.counting import count
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.metrics import Meters

NOW_MS = 1_000_000


def job(state: State, created_ms: int, task: str = "t") -> Job:
    return Job("id", "q", task, state, 3, 1, 0, created_ms, b"{}")


def counted(out: LaneOutput) -> Meters:
    meters = Meters(role="elector")
    count(meters, out, NOW_MS)
    return meters


def test_ends_are_counted_by_state_and_timed_from_the_creation() -> None:
    done = [job(State.SUCCEEDED, NOW_MS - 500), job(State.SUCCEEDED, NOW_MS - 1500), job(State.FAILED, NOW_MS + 9)]
    value = counted(LaneOutput(ended=done)).registry.get_sample_value
    labels = {"queue": "q", "task": "t"}
    assert value("joblog_jobs_ended_total", {**labels, "state": "Succeeded"}) == 2
    assert value("joblog_jobs_ended_total", {**labels, "state": "Failed"}) == 1
    assert value("joblog_job_end_to_end_seconds_sum", labels) == 2
    assert value("joblog_job_end_to_end_seconds_count", labels) == 3


def test_a_created_job_shows_the_series_of_what_may_happen_to_it() -> None:
    value = counted(LaneOutput(created=[job(State.ENQUEUED, NOW_MS)] * 2)).registry.get_sample_value
    labels = {"queue": "q", "task": "t"}
    assert value("joblog_jobs_created_total", labels) == 2
    assert value("joblog_job_retries_total", labels) == 0
    assert value("joblog_jobs_ended_total", {**labels, "state": "Deleted"}) == 0


def test_other_counts_have_the_labels_that_the_lane_gave_them() -> None:
    out = LaneOutput()
    out.counts["joblog_job_retries_total", "q", "t"] += 2
    out.counts["joblog_workers_lost_total",] += 1
    out.counts["joblog_quarantined_records_total", "undecodable"] += 3
    value = counted(out).registry.get_sample_value
    assert value("joblog_job_retries_total", {"queue": "q", "task": "t"}) == 2
    assert value("joblog_workers_lost_total") == 1
    assert value("joblog_quarantined_records_total", {"role": "elector", "reason": "undecodable"}) == 3
