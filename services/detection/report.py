"""The result of a demonstration: what was not as expected, and everything as one JSON document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from joblog.projections.monitor.models import JobDetails
from joblog.projections.replay.verification.report import Report
from joblog.services.detection.album import Album
from joblog.services.detection.proof import proven
from joblog.services.detection.stage import SLOTS, Stage
from joblog.services.detection.stories import PlannedRun
from joblog.services.detection.surveys import Surveys
from joblog.streams.contract.states import State


@dataclass(frozen=True, slots=True)
class Result:
    """A run and its two jobs as last read; None for one that is not in the projection."""

    run: PlannedRun
    detection: JobDetails | None
    cleanup: JobDetails | None

    def complaints(self) -> tuple[str, ...]:
        """What was not as expected."""
        return tuple(text for is_wrong, text in self._checks() if is_wrong)

    def _checks(self) -> Sequence[tuple[bool, str]]:
        story, detection, cleanup = self.run.story, self.detection, self.cleanup
        if detection is None or cleanup is None:
            return ((True, "its jobs are not in the projection"),)
        return (
            (detection.state is not story.expected, f"the detection is {detection.state}, not {story.expected}"),
            (detection.attempt < story.attempts, f"{detection.attempt} attempt(s), fewer than {story.attempts}"),
            (cleanup.state is not State.SUCCEEDED, f"the clean-up is {cleanup.state}"),
        )


def retry_waits_s(job: JobDetails) -> list[float]:
    """The delay of each retry, in seconds."""
    steps = reversed(job.history)
    return [
        round((datetime.fromisoformat(step.data["due"]) - before.at) / timedelta(seconds=1), 3)
        for before, step in pairwise(steps)
        if before.traversed and step.state is State.SCHEDULED
    ]


def document(
    stage: Stage,
    minute: timedelta,
    timings: Mapping[str, float],
    results: Sequence[Result],
    surveys: Surveys,
    album: Album,
    proof: Report,
) -> dict[str, Any]:
    """The document that `--output json` prints."""
    return {
        "ok": is_as_expected(results, surveys, album, proof),
        "bootstrap_servers": stage.kafka.bootstrap_servers,
        "topic_prefix": stage.names.prefix,
        "schema": stage.schema,
        "lanes": stage.lanes,
        "slots": SLOTS,
        "config": str(stage.config_file),
        "minute_s": minute / timedelta(seconds=1),
        "timings_s": {name: round(seconds, 3) for name, seconds in timings.items()},
        "metrics": stage.metrics,
        "runs": [_run(result) for result in results],
        "surveys": {"states": surveys.states, "complaints": list(surveys.complaints())},
        "album": album.document(),
        "verification": proven(proof),
    }


def is_as_expected(results: Sequence[Result], surveys: Surveys, album: Album, proof: Report) -> bool:
    """Whether all ended as their stories say, surveys and album were made, and the verification found nothing."""
    complaints = (surveys.complaints(), album.complaints(), *(result.complaints() for result in results))
    return proof.holds and not any(complaints)


def _run(result: Result) -> dict[str, Any]:
    story = result.run.story
    return {
        "run_id": result.run.run_id,
        "story": story.name,
        "photograph": story.photograph,
        "upload": story.upload.value,
        "expected": story.expected.value,
        "complaints": list(result.complaints()),
        "detection": _job(result.detection),
        "cleanup": _job(result.cleanup),
    }


def _job(job: JobDetails | None) -> dict[str, Any] | None:
    """A job, with its history from the first step to the last."""
    if job is None:
        return None
    known: dict[str, Any] = job.model_dump(mode="json")
    return {**known, "history": known["history"][::-1], "retry_waits_s": retry_waits_s(job)}
