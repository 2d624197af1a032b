"""The tasks of the detection service; `DetectionServer` is a worker that knows them."""

import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from joblog.services.detection import vision
from joblog.services.detection.names import (
    ALBUM_TASK,
    CLEANUP_QUEUE,
    CLEANUP_TASK,
    PAGE_TASK,
    PANORAMA_TASK,
    RUN_ID,
    RUN_QUEUE,
    RUN_TASK,
    SURVEY_TASK,
)
from joblog.services.detection.workspace import ARRIVING, Workspace, content_of, remove_scratch
from joblog.services.tasks.context import JobContext
from joblog.services.tasks.task import task

#: The panorama's strips, and how long each takes.
STRIPS: Final = 300
STRIP_S: Final = 0.1


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


@task(PAGE_TASK, queue=CLEANUP_QUEUE, timeout=timedelta(minutes=1))
def add_page(photograph: str, workspace: Path, context: JobContext) -> dict[str, int]:
    """Add a photograph to the album. Its jobs share a mutex: two at once would lose a page."""
    rooms = Workspace(workspace)
    source = rooms.scratch(context.job_id)
    source.mkdir(parents=True, exist_ok=True)
    copy = source / photograph
    copy.write_bytes(content_of(photograph))
    pages = vision.add_page(rooms.album, vision.read(copy))
    remove_scratch(source)
    return {"pages": pages}


@task(ALBUM_TASK, queue=CLEANUP_QUEUE, timeout=timedelta(minutes=1))
def close_album(workspace: Path) -> dict[str, int]:
    """Count the pages of the album, when all of them are in it."""
    return {"pages": vision.pages_of(Workspace(workspace).album)}


@task(PANORAMA_TASK, queue=CLEANUP_QUEUE, timeout=timedelta(minutes=1))
def make_panorama(workspace: Path, context: JobContext) -> None:
    """Work for half a minute, strip by strip, unless it is told to stop."""
    for strip in range(STRIPS):
        context.progress(strip / STRIPS, f"strip {strip} of {STRIPS}")
        if context.cancellation.wait(STRIP_S):
            Workspace(workspace).stopped.write_text(str(time.time()))
            context.cancellation.raise_if_cancelled()
