"""What the demonstration says of its batch, its mutex and the run that it cancels."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from joblog.projections.monitor.models import Batch, HistoryEntry, JobDetails, Progress
from joblog.services.detection.album import Album
from joblog.services.detection.workspace import Workspace
from joblog.streams.contract.states import State

AT = datetime(2026, 1, 1, tzinfo=UTC)


def job(job_id: str, state: State, kind: str = "job.x", **data: Any) -> JobDetails:
    event = {"version": 1, "attempt": 1, "lane": 0, "log_offset": 1, "type": kind, "traversed": False}
    entry = HistoryEntry.model_validate({**event, "state": state, "at": AT, "reason": None, "data": data})
    about = {"retry": 0, "priority": 0, "queue": "q", "task": "t", "created_at": AT, "changed_at": AT}
    lists = {"history": (entry,), "continuations": (), "rejected": (), "spec": None, "parameters": {}}
    return JobDetails.model_validate(
        {
            "id": job_id,
            "state": state,
            "lane": 0,
            "version": 1,
            "attempt": 1,
            "log_offset": 1,
            **about,
            **lists,
            **data,
        }
    )


class Everything:
    """A client and a monitor: what was created is found as it was said to be."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobDetails] = {}
        self.batches: dict[str, Batch] = {}
        self.deleted: list[str] = []
        self.job_ids: list[str] = []
        self.id = "b"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def batch(self, _name: str) -> Any:
        return self.batches.get(self.id) if _name == self.id else self

    def enqueue(self, _task: str, **_: Any) -> str:
        job_id = f"page-{len(self.job_ids)}"
        self.job_ids.append(job_id)
        return job_id

    def continue_batch(self, *_: Any, **__: Any) -> str:
        return "closing"

    def job(self, job_id: str) -> JobDetails | None:
        return self.jobs.get(job_id)

    def delete(self, job_id: str, **_: Any) -> None:
        self.deleted.append(job_id)


def test_a_run_is_cancelled_once_when_it_has_told_how_far_it_is(tmp_path: Path) -> None:
    known, told = Everything(), []
    album = Album(known, known, tmp_path, lambda *line: told.append(line))  # type: ignore[arg-type]
    album.begin(["a.png", "b.png"])
    panorama = known.job_ids[-1]
    known.jobs[panorama] = job(panorama, State.PROCESSING)
    album.look()
    assert known.deleted == []
    progress = Progress(at=AT, attempt=1, share=0.1, text="strip 1")
    known.jobs[panorama] = known.jobs[panorama].model_copy(update={"progress": progress})
    album.look()
    album.look()
    assert known.deleted == [panorama]
    assert told == [("panorama", "cancelled", State.PROCESSING, "strip 1")]
    assert "panorama: its run was not cancelled" in album.complaints()
    known.jobs[panorama] = job(panorama, State.DELETED)
    Workspace(tmp_path).stopped.write_text(str(AT.timestamp() + 0.25))
    album.look()
    assert album.stopped_s == 0.25
