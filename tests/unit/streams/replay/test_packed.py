"""The history of a job comes back from bytes as it was, whatever happened to it."""

from datetime import UTC, datetime

from joblog.streams.contract import wire
from joblog.streams.contract.states import State
from joblog.streams.lane.transitions import Lost
from joblog.streams.replay.history import History, Outside, Run
from joblog.streams.replay.packed import packed, unpacked

from tests.support.scene import Pause, Tick, id_of, released, run_failed
from tests.unit.streams.replay.test_what_if import TWICE, recorded, recovered

JOB = id_of("a")
SOON = datetime(2027, 6, 1, tzinfo=UTC)


def comes_back(history: History) -> None:
    again = unpacked(packed(history))
    assert again == history
    assert packed(again) == packed(history)


def test_runs_that_succeed_fail_are_given_back_and_are_lost() -> None:
    comes_back(recovered())
    comes_back(recorded((released("a", 2),), (run_failed("a", 4),), retry=TWICE))
    lost = recorded((Tick(20_000),))
    assert isinstance(lost.steps[0], Run)
    assert isinstance(lost.steps[0].outcome, Lost)
    comes_back(lost)


def test_commands_and_the_end_of_a_parent() -> None:
    commands = (
        wire.RequeueJob(job_id=JOB, reason="again"),
        wire.RescheduleJob(job_id=JOB, run_at=SOON),
        wire.DeleteJob(job_id=JOB),
    )
    history = recorded((Pause(2_000), run_failed("a", 2)), commands)
    kinds = [type(step.what) for step in history.steps if isinstance(step, Outside)]
    assert kinds == [type(one) for one in commands]
    comes_back(history)
    ended = wire.ParentEnded(job_id=JOB, parent=id_of("b"), state=State.FAILED, run=False, reason="no")
    history.steps.append(Outside(1, ended, State.AWAITING))
    comes_back(history)


def test_a_job_that_nobody_has_run_yet() -> None:
    comes_back(recorded())
