"""The three tasks of the detection service; `DetectionServer` is a worker that knows them."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from joblog.services.detection import vision
from joblog.services.detection.names import CLEANUP_QUEUE, CLEANUP_TASK, RUN_ID, RUN_QUEUE, RUN_TASK, SURVEY_TASK
from joblog.services.detection.workspace import ARRIVING, Workspace, remove_scratch
from joblog.services.tasks.context import JobContext
from joblog.services.tasks.task import task


# In threads of the worker: the detectors hold Python's lock for a quarter of a second at most (8 threads, 2 cores).
@task(RUN_TASK, queue=RUN_QUEUE, timeout=timedelta(minutes=2))
def run_detection(photograph: Path, workspace: Path, context: JobContext) -> dict[str, Any]:
    """Detect what is in a photograph. OSError if it is missing or damaged; a retry may find it complete."""
    if not photograph.exists():
        raise FileNotFoundError(f"{photograph.name} has not arrived")
    run_id = str(context.parameters[RUN_ID])
    rooms = Workspace(workspace)
    scratch = rooms.scratch(run_id)
    scratch.mkdir(parents=True, exist_ok=True)
    # A copy, since an upload may be replaced while it is read.
    copy = Path(shutil.copy(photograph, scratch / photograph.name))
    seen = vision.read(copy)
    detection = vision.detect(seen)
    marked = rooms.results / f"{run_id}.png"
    vision.save_marked(seen, detection, marked)
    return {**detection.summary(), "marked": str(marked)}


@task(CLEANUP_TASK, queue=CLEANUP_QUEUE, timeout=timedelta(minutes=1))
def clean_up(workspace: Path, context: JobContext) -> dict[str, int]:
    """Remove the scratch directory of a run, whatever its outcome."""
    count, size = remove_scratch(Workspace(workspace).scratch(str(context.parameters[RUN_ID])))
    return {"files_removed": count, "bytes_removed": size}


@task(SURVEY_TASK, queue=CLEANUP_QUEUE, timeout=timedelta(minutes=1))
def survey(workspace: Path) -> dict[str, int]:
    """Count the photographs that have arrived, and those that are marked."""
    rooms = Workspace(workspace)
    return {
        "arrived": sum(one.suffix != ARRIVING for one in rooms.uploads.iterdir()),
        "marked": len(list(rooms.results.iterdir())),
    }
