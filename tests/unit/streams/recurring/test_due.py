from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.streams.contract.recurring import Definition, Interval, Misfire, Overlap, Pause, Progress, Skip
from joblog.streams.recurring.due import MISFIRED, OVERLAPPED, SKIPPED, Decision, decide, latest, paused_again
from joblog.streams.recurring.schedule import Every, Schedule, schedule_of

START = datetime(2026, 1, 1, tzinfo=UTC)
JOB = "00aa1ebf-3759-8003-b6cc-e905a6c5079c"


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def decided(minutes: float, *, is_running: bool = False, **given: Any) -> Decision | None:
    """The decision on a definition that comes every minute, so many minutes after its start."""
    aspects = {name: given.pop(name, None) for name in ("pause", "skip", "progress")}
    definition = Definition(id="a", schedule="* * * * *", task="t", starts_at=START, **given)
    return decide(definition, schedule_of(definition), **aspects, is_running=is_running, now=at(minutes))


def test_nothing_is_done_before_it_is_due() -> None:
    assert decided(0.9) is None


def test_what_is_due_is_created() -> None:
    assert decided(1) == Decision((at(1),), False, (), None, at(1))


def test_what_was_decided_is_not_decided_again() -> None:
    assert decided(1.5, progress=Progress(through=at(1))) is None


def test_relaxed_makes_one_job_of_all_that_was_missed() -> None:
    decision = decided(600.5)
    assert decision is not None
    assert (decision.create, decision.through) == ((at(600),), at(600))
    assert decision.left_out[-1] == (at(599), MISFIRED)


def test_strict_makes_a_job_of_each_up_to_its_cap() -> None:
    decision = decided(5.5, misfire=Misfire.STRICT, misfire_cap=3)
    assert decision == Decision((at(3), at(4), at(5)), False, ((at(1), MISFIRED), (at(2), MISFIRED)), None, at(5))


def test_ignorable_makes_jobs_of_those_within_the_tolerance() -> None:
    decision = decided(5.5, misfire=Misfire.IGNORABLE, misfire_tolerance_s=100)
    assert decision is not None
    assert (decision.create, decision.through) == ((at(4), at(5)), at(5))
    assert decided(5.5, misfire=Misfire.IGNORABLE, misfire_tolerance_s=10) == Decision(
        (), False, tuple((at(n), MISFIRED) for n in range(1, 6)), None, at(5)
    )


def test_a_skipped_occurrence_is_left_out_and_the_next_one_is_not() -> None:
    skip = Skip(after=at(0.5))
    assert decided(1, skip=skip) == Decision((), False, ((at(1), SKIPPED),), None, at(1))
    assert decided(2, skip=skip, progress=Progress(through=at(1))) == Decision((at(2),), False, (), None, at(2))


def test_a_pause_creates_nothing_but_what_was_due_before() -> None:
    pause = Pause(paused=True, at=at(1.5))
    assert decided(9, pause=pause) == Decision((at(1),), False, (), None, at(1))
    assert decided(9, pause=pause, progress=Progress(through=at(1))) is None


@pytest.mark.parametrize(
    "pause", [Pause(paused=False, at=at(7.5)), Pause(paused=True, at=at(1.5), until=at(7.5))], ids=["resumed", "over"]
)
def test_what_fell_into_a_pause_is_not_made_up_for(pause: Pause) -> None:
    decision = decided(8, pause=pause, progress=Progress(through=at(1)), misfire=Misfire.STRICT)
    assert decision == Decision((at(8),), False, (), None, at(8))


def test_a_pause_that_is_changed_makes_up_for_nothing_of_itself() -> None:
    first = Pause(paused=True, at=at(1.5))
    changed = paused_again(first, at(5.5), at(7.5))
    assert decided(6, pause=changed, progress=Progress(through=at(1))) is None
    assert decided(8, pause=changed, progress=Progress(through=at(1)), misfire=Misfire.STRICT) == Decision(
        (at(8),), False, (), None, at(8)
    )


@pytest.mark.parametrize(
    "first", [Pause(paused=False, at=at(4.5)), Pause(paused=True, at=at(1.5), until=at(4.5))], ids=["resumed", "over"]
)
def test_a_pause_makes_up_for_nothing_of_the_one_before(first: Pause) -> None:
    second = paused_again(first, at(5.5), None)
    decision = decided(9, pause=second, progress=Progress(through=at(1)), misfire=Misfire.STRICT)
    assert decision == Decision((at(5),), False, (), None, at(5)), "only what was due between the two"
    third = paused_again(second, at(9.5), at(20))
    assert decided(10, pause=third, progress=Progress(through=at(1)), misfire=Misfire.STRICT) == decision


def running(overlap: Overlap, waiting: datetime | None = None, minutes: float = 2, *, is_running: bool = True) -> Any:
    progress = Progress(through=at(1), last_job_id=JOB, waiting=waiting)
    return decided(minutes, overlap=overlap, progress=progress, is_running=is_running, misfire=Misfire.STRICT)


def test_allow_lets_both_run() -> None:
    assert running(Overlap.ALLOW) == Decision((at(2),), False, (), None, at(2))


def test_skip_leaves_out_while_the_one_before_runs() -> None:
    assert running(Overlap.SKIP) == Decision((), False, ((at(2), OVERLAPPED),), None, at(2))
    assert running(Overlap.SKIP, is_running=False) == Decision((at(2),), False, (), None, at(2))


def test_skip_creates_one_of_several_that_are_due() -> None:
    assert running(Overlap.SKIP, minutes=3, is_running=False) == Decision(
        (at(2),), False, ((at(3), OVERLAPPED),), None, at(3)
    )


def test_replace_deletes_the_one_before() -> None:
    assert running(Overlap.REPLACE) == Decision((at(2),), True, (), None, at(2))
    assert running(Overlap.REPLACE, is_running=False) == Decision((at(2),), False, (), None, at(2))


def test_queue_lets_the_latest_wait_until_the_one_before_has_ended() -> None:
    assert running(Overlap.QUEUE) == Decision((), False, (), at(2), at(2))
    assert running(Overlap.QUEUE, at(1), 3) == Decision(
        (), False, ((at(1), OVERLAPPED), (at(2), OVERLAPPED)), at(3), at(3)
    )
    assert running(Overlap.QUEUE, at(1), 1.5) is None
    assert running(Overlap.QUEUE, at(1), 1.5, is_running=False) == Decision((at(1),), False, (), None, at(1))
    assert running(Overlap.QUEUE, at(1), 2, is_running=False) == Decision((at(1),), False, (), at(2), at(2))


def test_what_waits_is_created_when_overlap_is_allowed_again() -> None:
    assert running(Overlap.ALLOW, at(1)) == Decision((at(1), at(2)), False, (), None, at(2))


def test_what_waits_is_not_lost_when_the_policy_is_changed() -> None:
    assert running(Overlap.SKIP, at(1)) == Decision((), False, ((at(2), OVERLAPPED),), at(1), at(2))
    assert running(Overlap.SKIP, at(1), 1.5, is_running=False) == Decision((at(1),), False, (), None, at(1))
    assert running(Overlap.SKIP, at(1), is_running=False) == Decision(
        (at(1),), False, ((at(2), OVERLAPPED),), None, at(2)
    )
    assert running(Overlap.REPLACE, at(1)) == Decision((at(2),), True, ((at(1), OVERLAPPED),), None, at(2))
    assert running(Overlap.REPLACE, at(1), 1.5, is_running=False) == Decision((at(1),), False, (), None, at(1))


class Counted:
    """A schedule that counts how often it is asked."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.calls = schedule, 0

    def next_after(self, instant: datetime) -> datetime | None:
        self.calls += 1
        return self.schedule.next_after(instant)


@pytest.mark.parametrize("every_s", [1, 4, 8, 60, 3600])
def test_few_more_occurrences_are_looked_at_than_are_asked_for(every_s: int) -> None:
    """A process that decides for seconds takes that for a pause, starts over, and decides again."""
    schedule = Counted(Every(Interval(every_s=every_s, anchor=START)))
    until = START + timedelta(days=900)
    found = latest(schedule, START, until, 1_000)
    assert found == [until - timedelta(seconds=every_s) * back for back in reversed(range(1_000))]
    assert schedule.calls < 2_500
    assert latest(schedule, until, START, 10) == latest(schedule, START, START, 10) == []
