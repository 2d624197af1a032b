from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.projections.database import DatabaseAway
from joblog.projections.monitor.models import HistoryEntry, JobDetails
from joblog.services.detection.console import found, told
from joblog.services.detection.manager import ManagedRun
from joblog.services.detection.monitor import RunMonitor, Step
from joblog.services.detection.report import Result, retry_waits_s
from joblog.services.detection.stories import STORIES, PlannedRun
from joblog.streams.contract.states import State

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
RUN = ManagedRun("run-1", "detection-1", "cleanup-1")
ERROR = {"type": "OSError", "message": "image file is truncated", "details": "Traceback ...", "types": ["OSError"]}


def entry(version: int, state: State, *, after_s: float = 0, traversed: bool = False, **data: Any) -> HistoryEntry:
    return HistoryEntry(
        version=version,
        type=f"job.{state.lower()}",
        state=state,
        traversed=traversed,
        attempt=1,
        at=BEGAN + timedelta(seconds=after_s),
        reason=None,
        data=data,
        lane=0,
        log_offset=version,
    )


def job(job_id: str, *steps: HistoryEntry, attempt: int = 1) -> JobDetails:
    return JobDetails(
        id=job_id,
        lane=0,
        state=steps[-1].state,
        version=steps[-1].version,
        attempt=attempt,
        retry=0,
        priority=100,
        queue="detection",
        task="detection.run",
        created_at=BEGAN,
        changed_at=steps[-1].at,
        spec=None,
        parameters={},
        history=steps[::-1],
        continuations=(),
        rejected=(),
        log_offset=0,
    )


SCHEDULED = entry(1, State.SCHEDULED, due="2026-01-01T00:00:10.000Z")
PROCESSING = entry(2, State.PROCESSING, after_s=10, worker="DetectionServer:1:a", lease=2)
FAILED = entry(3, State.FAILED, after_s=11, traversed=True, exception=ERROR)
RETRIED = entry(4, State.SCHEDULED, after_s=11, due="2026-01-01T00:00:13.000Z", retry=1)
SUCCEEDED = entry(
    5, State.SUCCEEDED, after_s=14, duration_ms=12.5, result={"files_removed": 1, "bytes_removed": 2000}
)
AWAITING = entry(1, State.AWAITING, after_s=0.5)


@dataclass
class FakeMonitor:
    """Answers with the jobs that it was given."""

    jobs: dict[str, JobDetails] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_away: bool = False

    def job(self, job_id: str) -> JobDetails | None:
        self.asked.append(job_id)
        if self.is_away:
            raise DatabaseAway("Postgres does not answer")
        return self.jobs.get(job_id)


@dataclass
class Watching:
    """A monitor of one run, and the steps that it reacted to."""

    source: FakeMonitor = field(default_factory=FakeMonitor)
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runs = RunMonitor(self.source, dict.fromkeys(State, self.steps.append))
        self.runs.watch(RUN)

    def see(self, *jobs: JobDetails, at_ended: bool = False) -> list[tuple[bool, State]]:
        """The reactions to these jobs: clean-up or not, and the state."""
        self.source.jobs |= {job.id: job for job in jobs}
        self.steps.clear()
        self.runs.look(at_ended=at_ended)
        return [(step.is_cleanup, step.entry.state) for step in self.steps]


@pytest.fixture
def watching() -> Watching:
    return Watching()


def test_every_step_is_reacted_to_once_in_its_order(watching: Watching) -> None:
    detection = job(RUN.detection_job, SCHEDULED, PROCESSING)
    assert watching.see(detection, job(RUN.cleanup_job, AWAITING)) == [
        (False, State.SCHEDULED),
        (True, State.AWAITING),
        (False, State.PROCESSING),
    ]
    assert watching.see() == []


def test_steps_between_two_looks_are_not_missed(watching: Watching) -> None:
    watching.see(job(RUN.detection_job, SCHEDULED))
    seen = watching.see(job(RUN.detection_job, SCHEDULED, PROCESSING, FAILED, RETRIED))
    assert seen == [(False, State.PROCESSING), (False, State.FAILED), (False, State.SCHEDULED)]


def test_a_failure_comes_with_its_exception(watching: Watching) -> None:
    watching.see(job(RUN.detection_job, SCHEDULED, PROCESSING, FAILED, RETRIED))
    failed = next(step for step in watching.steps if step.entry.state is State.FAILED)
    assert failed.run_id == "run-1"
    assert failed.entry.data["exception"] == ERROR


def test_a_run_has_ended_when_its_clean_up_has(watching: Watching) -> None:
    watching.see(job(RUN.detection_job, SCHEDULED, SUCCEEDED), job(RUN.cleanup_job, AWAITING))
    assert watching.runs.ended == 0
    watching.see(job(RUN.cleanup_job, AWAITING, SUCCEEDED))
    assert watching.runs.ended == 1


def test_a_job_that_is_not_projected_yet_has_not_ended(watching: Watching) -> None:
    assert watching.see() == []
    assert watching.runs.ended == 0
    assert watching.runs.jobs_of("run-1") == (None, None)
    assert watching.runs.jobs_of("run-2") == (None, None)


def test_ended_jobs_are_looked_at_again_only_on_request(watching: Watching) -> None:
    watching.see(job(RUN.detection_job, SCHEDULED, SUCCEEDED))
    watching.source.asked.clear()
    again = entry(6, State.ENQUEUED, after_s=20)
    assert watching.see(job(RUN.detection_job, SCHEDULED, SUCCEEDED, again)) == []
    assert watching.source.asked == [RUN.cleanup_job]
    assert watching.see(at_ended=True) == [(False, State.ENQUEUED)]


def test_a_database_that_is_away_is_asked_again(watching: Watching) -> None:
    watching.source.is_away = True
    assert watching.see(job(RUN.detection_job, SCHEDULED)) == []
    watching.source.is_away = False
    assert watching.see() == [(False, State.SCHEDULED)]


def result(story: str, detection: JobDetails | None, cleanup: JobDetails | None) -> Result:
    chosen = next(one for one in STORIES if one.name == story)
    return Result(PlannedRun("run-1", chosen), detection, cleanup)


CLEAN = job(RUN.cleanup_job, AWAITING, SUCCEEDED)


def test_a_run_that_went_as_it_should_is_no_reason_to_complain() -> None:
    assert result("portrait", job("d", SCHEDULED, SUCCEEDED), CLEAN).complaints() == ()


@pytest.mark.parametrize(
    ("story", "detection", "cleanup", "complaint"),
    [
        ("portrait", None, CLEAN, "its jobs are not in the projection"),
        ("portrait", job("d", SCHEDULED, FAILED), CLEAN, "the detection is Failed, not Succeeded"),
        ("late upload", job("d", SCHEDULED, SUCCEEDED), CLEAN, "1 attempt(s), fewer than 2"),
        ("portrait", job("d", SUCCEEDED), job("c", AWAITING), "the clean-up is Awaiting"),
    ],
)
def test_a_run_that_went_wrong_is_told(
    story: str, detection: JobDetails | None, cleanup: JobDetails | None, complaint: str
) -> None:
    assert result(story, detection, cleanup).complaints() == (complaint,)


def test_the_wait_for_a_retry_is_from_the_failure_to_the_due_time() -> None:
    assert retry_waits_s(job("d", SCHEDULED, PROCESSING, FAILED, RETRIED, SUCCEEDED)) == [2.0]


def test_a_delay_at_the_beginning_is_no_wait_for_a_retry() -> None:
    assert retry_waits_s(job("d", SCHEDULED, PROCESSING, SUCCEEDED)) == []


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (SCHEDULED, "Due in 10 s"),
        (PROCESSING, "Attempt 1 on DetectionServer"),
        (FAILED, "OSError: image file is truncated"),
        (RETRIED.model_copy(update={"reason": "Retry attempt 1 of 3: image file"}), "Retry attempt 1 of 3 in 2 s"),
        (SUCCEEDED, "1 file removed (2 kB), in 12.5 ms"),
        (AWAITING, ""),
    ],
)
def test_a_step_is_told_in_words(step: HistoryEntry, words: str) -> None:
    assert told(step) == words


def test_a_detection_is_told_by_its_counts() -> None:
    assert found({"counts": {"faces": 1, "blobs": 0, "shapes": 24}}) == "1 face, 0 blobs, 24 shapes"
