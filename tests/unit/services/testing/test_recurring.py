"""Joblog in memory: recurring jobs, by the rules of the recurring process."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from joblog.services import JobOptions, Limit, State, recurring, task
from joblog.services.client.recurring import UnknownRecurring
from joblog.services.testing import InMemoryJoblog
from joblog.streams.errors import InvalidData

#: A Sunday; the clocks of Berlin change on 2027-03-28.
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@recurring("0 2 * * *", zone="Europe/Berlin")
@task("nightly")
def nightly() -> None: ...


@task("tick")
def tick(number: int = 0) -> int:
    return number


@pytest.fixture
def joblog() -> Iterator[InMemoryJoblog]:
    with InMemoryJoblog(now=NOW) as made:
        yield made


def times(joblog: InMemoryJoblog) -> list[str]:
    """The occurrences of the jobs that there are, with why they were created."""
    return [f"{job.parameters['Time'][11:16]} {job.parameters['Cause']}" for job in joblog.jobs()]


def test_an_occurrence_makes_a_job_at_its_instant_in_its_zone(joblog: InMemoryJoblog) -> None:
    joblog.recurring.add_or_update("report", tick, "30 2 * * *", zone="Europe/Berlin", args=(7,))
    joblog.advance(hours=13, minutes=29)
    assert joblog.jobs() == []
    joblog.advance(minutes=1)
    job = joblog.assert_enqueued(tick, args=(7,), count=1)
    assert job.created_at - datetime(2026, 11, 30, 1, 30, tzinfo=UTC) <= timedelta(milliseconds=1)
    assert job.parameters == {"RecurringJobId": "report", "Time": "2026-11-30T01:30:00.000Z", "Cause": "schedule"}
    joblog.advance(days=1)
    assert times(joblog) == ["01:30 schedule"] * 2


def test_a_time_that_the_change_of_clocks_leaves_out_moves_to_the_next_one() -> None:
    with InMemoryJoblog(nightly, now=datetime(2027, 3, 27, 12, tzinfo=UTC)) as joblog:
        assert joblog.register_recurring() == ["nightly"]
        assert joblog.register_recurring() == []
        ran = joblog.run_for(days=2)
        assert [job.created_at.hour for job in ran] == [1, 0]
        assert [job.id for job in joblog.jobs(task=nightly, state=State.SUCCEEDED)] == [job.id for job in ran]


def test_jobs_run_as_they_become_due_and_draining_does_not_wait_for_them(joblog: InMemoryJoblog) -> None:
    joblog.recurring.add_or_update("often", tick, timedelta(minutes=10))
    assert joblog.drain() == []
    assert joblog.now == NOW
    ran = joblog.run_for(hours=1)
    assert [job.state for job in ran] == [State.SUCCEEDED] * 6
    assert all(job.history[0].at - job.created_at < timedelta(seconds=1) for job in ran)
    assert joblog.now - NOW < timedelta(hours=1, seconds=1)


@pytest.mark.parametrize(
    ("misfire", "made"),
    [
        ("relaxed", ["15:00 misfire"]),
        ("strict", ["13:00 misfire", "14:00 misfire", "15:00 misfire"]),
        ("ignorable", []),
    ],
)
def test_what_is_missed_in_an_outage_is_made_up_for_as_the_definition_says(
    joblog: InMemoryJoblog, misfire: str, made: list[str]
) -> None:
    joblog.recurring.add_or_update("hourly", tick, "@hourly", misfire=misfire)
    with joblog.recurring_outage():
        joblog.advance(hours=3, minutes=30)
        assert joblog.jobs() == []
    assert times(joblog) == made
    joblog.advance(minutes=30)
    assert times(joblog)[len(made) :] == ["16:00 schedule"]


def test_an_occurrence_is_left_out_while_the_job_before_has_not_ended(joblog: InMemoryJoblog) -> None:
    joblog.recurring.add_or_update("hourly", tick, "@hourly", overlap="skip")
    joblog.advance(hours=2)
    assert times(joblog) == ["13:00 schedule"]
    left_out = joblog.recurring.get("hourly").progress
    assert left_out is not None
    assert (left_out.last_skipped, left_out.skipped_for) == (NOW + timedelta(hours=2), "overlap")
    joblog.run_all()
    joblog.advance(hours=1)
    assert times(joblog) == ["13:00 schedule", "15:00 schedule"]


def test_an_occurrence_that_waits_becomes_a_job_once_the_one_before_has_ended(joblog: InMemoryJoblog) -> None:
    joblog.recurring.add_or_update("hourly", tick, "@hourly", overlap="queue")
    joblog.advance(hours=3)
    assert times(joblog) == ["13:00 schedule"]
    assert len(joblog.run_all()) == 2, "the one that waited is there at once"
    assert times(joblog) == ["13:00 schedule", "15:00 queue"]
    joblog.advance(hours=2)
    joblog.delete(joblog.jobs()[-1].id)
    assert times(joblog) == ["13:00 schedule", "15:00 queue", "16:00 schedule", "17:00 queue"]


def test_an_occurrence_replaces_the_job_before(joblog: InMemoryJoblog) -> None:
    joblog.recurring.add_or_update("hourly", tick, "@hourly", overlap="replace")
    joblog.advance(hours=2)
    assert [job.state for job in joblog.jobs()] == [State.DELETED, State.ENQUEUED]
    assert joblog.jobs()[0].reason == "replaced by the next job of hourly"


def test_definitions_are_paused_skipped_edited_triggered_and_removed(joblog: InMemoryJoblog) -> None:
    calls = joblog.recurring
    calls.add_or_update("hourly", tick, "@hourly")
    calls.pause("hourly", until=NOW + timedelta(hours=2, minutes=30))
    joblog.advance(hours=3)
    assert times(joblog) == ["15:00 schedule"]
    assert calls.skip_next("hourly") == NOW + timedelta(hours=4)
    joblog.advance(hours=2)
    assert times(joblog) == ["15:00 schedule", "17:00 schedule"]
    triggered = joblog.job(calls.trigger_now("hourly"))
    assert (triggered.parameters["Cause"], triggered.task) == ("trigger", "tick")
    calls.edit("hourly", schedule="30 * * * *", kwargs={"number": 3})
    joblog.advance(hours=1)
    assert times(joblog)[-1] == "17:30 schedule"
    assert joblog.run_all()[-1].result == 3
    assert [row.id for row in calls.list()] == ["hourly"]
    assert calls.remove("hourly")
    joblog.advance(days=1)
    assert joblog.jobs(state=State.ENQUEUED) == []
    with pytest.raises(UnknownRecurring):
        calls.get("hourly")


def test_to_resume_what_is_not_paused_takes_nothing_away(joblog: InMemoryJoblog) -> None:
    calls = joblog.recurring
    calls.add_or_update("hourly", tick, "@hourly")
    with joblog.recurring_outage():
        joblog.advance(hours=1, minutes=30)
        calls.resume("hourly")
    assert times(joblog) == ["13:00 misfire"]
    calls.pause("hourly", until=NOW + timedelta(hours=2, minutes=30))
    with joblog.recurring_outage():
        joblog.advance(hours=2)
        calls.resume("hourly")
    assert times(joblog) == ["13:00 misfire", "15:00 misfire"], "the pause was over before that one was due"


def test_a_definition_that_cannot_be_used_is_refused_as_by_a_client(joblog: InMemoryJoblog) -> None:
    with pytest.raises(InvalidData, match="Europe/Berlim"):
        joblog.recurring.add_or_update("x", tick, "@daily", zone="Europe/Berlim")
    for zone in ("Europe/Berlim", "\udcff", "\0", ""):  # of an interval, too, though it does not depend on it
        with pytest.raises(InvalidData, match="zone"):
            joblog.recurring.add_or_update("x", tick, timedelta(hours=1), zone=zone)
    with pytest.raises(InvalidData, match="has 2 fields"):
        joblog.recurring.add_or_update("x", tick, "every day")
    assert joblog.recurring.list() == []


def test_a_job_is_due_while_another_runs_and_a_long_one_is_not_overtaken(joblog: InMemoryJoblog) -> None:
    joblog.recurring.add_or_update("often", tick, timedelta(minutes=10), overlap="skip")
    joblog.takes(tick, timedelta(minutes=25))
    ran = joblog.run_for(hours=1)
    assert [job.parameters["Time"][11:16] for job in ran] == ["12:10", "12:40"]
    assert joblog.recurring.get("often").progress is not None


def test_draining_ends_though_a_job_is_held_back_and_a_recurring_job_goes_on(joblog: InMemoryJoblog) -> None:
    joblog.recurring.add_or_update("hourly", tick, "@hourly")
    options = JobOptions(limits=[Limit.sliding_window("bank", 1, per=timedelta(days=30))])
    _, held = (joblog.enqueue(tick, options=options) for _ in range(2))
    assert 1 < len(joblog.drain()) < 100
    joblog.assert_state(held, State.ENQUEUED)


def test_jobs_that_take_longer_than_the_time_between_them_are_run_for_the_time_given(joblog: InMemoryJoblog) -> None:
    joblog.recurring.add_or_update("often", tick, timedelta(minutes=1))
    joblog.takes(tick, timedelta(minutes=5))
    ran = joblog.run_for(minutes=10)
    assert len(ran) == 10, "one for each minute of the ten, though they took 50"
    assert len(joblog.jobs(state=State.ENQUEUED)) == 41


def test_a_definition_is_refused_whose_jobs_would_be_too_large(joblog: InMemoryJoblog) -> None:
    with pytest.raises(InvalidData, match="more than the 1048576 of any command"):
        joblog.recurring.add_or_update("large", tick, "@hourly", args=("x" * 1_048_576,))
    assert joblog.recurring.list() == []
