import logging

import pytest
from joblog.streams.contract.ids import lane_of_shard, new_job_id
from joblog.streams.contract.states import State
from joblog.streams.elector.unserved import UnservedJobs
from joblog.streams.lane.job import Job
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.rules import LaneRules
from joblog.streams.metrics import Meters

LANES = 4
LEFT, GIVEN_UP = (lane_of_shard("hot", LANES, shard) for shard in (0, 1))


def lane_with(number: int, *states: State, shards: int) -> Lane:
    """A lane that holds jobs of the queue `hot`, as its rules spread it over so many lanes."""
    lane = Lane(number, LANES, LaneRules(shards={"hot": shards}))
    for state in states:
        job_id = new_job_id(number, 1)
        lane.jobs[job_id] = Job(job_id, "hot", "t", state, 1, 0, 0, 1, b"{}")
    return lane


def test_live_jobs_in_a_lane_that_is_not_served_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    meters = Meters()
    unserved = UnservedJobs(meters)

    def count() -> float | None:
        return meters.registry.get_sample_value("joblog_unserved_jobs", {"queue": "hot"})

    states = (State.ENQUEUED, State.SCHEDULED, State.FAILED)
    with caplog.at_level(logging.WARNING):
        unserved.report([lane_with(LEFT, *states, shards=1), lane_with(GIVEN_UP, *states, shards=1)])
    (record,) = caplog.records
    assert (record.message, vars(record)["lane"], vars(record)["jobs"]) == ("elector.jobs_not_served", GIVEN_UP, 2)
    assert "JOBLOG_QUEUE_SHARDS_BEFORE" in vars(record)["hint"]
    assert count() == 2
    unserved.report([lane_with(LEFT, *states, shards=2), lane_with(GIVEN_UP, *states, shards=2)])
    assert count() == 0
