"""An album of all photographs, by a batch of jobs that share a mutex; and a long job that is cancelled while it runs.

The pages are one batch: all of its jobs are created, or none, and what closes the album runs once, when all have
succeeded. They change the same file, so they share a mutex: a job that has to wait takes no slot of the worker.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from joblog.projections.database import DatabaseAway
from joblog.projections.monitor.models import Batch, JobDetails
from joblog.projections.monitor.monitor import Monitor
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.services.detection.names import ALBUM, ALBUM_TASK, CLEANUP_QUEUE, PAGE_TASK, PANORAMA, PANORAMA_TASK
from joblog.services.detection.workspace import Workspace
from joblog.services.tasks.limits import Limit
from joblog.streams.contract.states import FINAL_STATES, PROCESSING, State

log = logging.getLogger(__name__)

#: Called with what a line is about (batch, mutex, cancelled), the state, and what to say.
Told = Callable[[str, str, State, str], None]
_OPTIONS: Final = JobOptions(queue=CLEANUP_QUEUE)
_PAGE: Final = JobOptions(queue=CLEANUP_QUEUE, limits=(Limit.mutex(ALBUM),))


class Album:
    """Creates the jobs, cancels one, and tells what became of them."""

    def __init__(self, client: Client, monitor: Monitor, workspace: Path, told: Told) -> None:
        self._client, self._monitor, self._told = client, monitor, told
        self._workspace = workspace
        self._batch_id = self._closing_id = self._panorama_id = ""
        self._pages: list[str] = []
        self.batch: Batch | None = None
        self.closing: JobDetails | None = None
        self.panorama: JobDetails | None = None
        #: What pages waited for before they started, as their histories say.
        self.waits: dict[str, str] = {}
        self._said: set[str] = set()

    def begin(self, photographs: Sequence[str]) -> None:
        """Create everything."""
        workspace = str(self._workspace)
        with self._client.batch(ALBUM) as batch:
            for photograph in photographs:
                batch.enqueue(PAGE_TASK, photograph=photograph, workspace=workspace, options=_PAGE)
        self._batch_id, self._pages = batch.id, list(batch.job_ids)
        self._closing_id = self._client.continue_batch(batch.id, ALBUM_TASK, workspace=workspace, options=_OPTIONS)
        self._panorama_id = self._client.enqueue(PANORAMA_TASK, workspace=workspace, options=_OPTIONS)

    def look(self) -> None:
        """Read the jobs again, and cancel the long one when it runs."""
        if not self._batch_id or self.has_ended:
            return
        try:
            self.batch = self._monitor.batch(self._batch_id)
            self.closing = self._monitor.job(self._closing_id)
            self.panorama = self._monitor.job(self._panorama_id)
            for page in self._pages:
                self._look_at_page(page)
        except DatabaseAway as exc:
            log.warning("detection.monitor.waiting", extra={"reason": str(exc)})
            return
        self._cancel()
        self._tell()

    @property
    def has_ended(self) -> bool:
        """Whether all of it has ended, and the run that was cancelled has stopped."""
        jobs = (self.closing, self.panorama)
        is_told = self.batch is not None and self.batch.state in FINAL_STATES
        return is_told and all(job is not None and job.state in FINAL_STATES for job in jobs) and self._has_stopped

    @property
    def stopped_s(self) -> float | None:
        """How long after its deletion the run stopped; None if it did not."""
        if self.panorama is None or self.panorama.state is not State.DELETED or not self._has_stopped:
            return None
        stopped = float(Workspace(self._workspace).stopped.read_text())
        return round(max(stopped - self.panorama.changed_at.timestamp(), 0.0), 3)

    @property
    def pages(self) -> int:
        """How many pages the album has."""
        result = self.closing.result if self.closing is not None else None
        return int(result["pages"]) if isinstance(result, dict) else 0

    def facts(self) -> dict[str, str]:
        """What became of it, one line each."""
        batch, stopped = self.batch, self.stopped_s
        waited = next(iter(self.waits.values()), "nothing")
        counted = f"{batch.succeeded} of {batch.total} pages {batch.state}" if batch is not None else "unknown"
        return {
            "Batch": f"{ALBUM}: {counted}, then {ALBUM_TASK} ran once and found {self.pages}",
            "Mutex": f"{ALBUM}: one page at a time; {len(self.waits)} waited without a slot, for {waited}",
            "Cancelled": f"{PANORAMA}: its run stopped {stopped} s after it was deleted",
        }

    def complaints(self) -> Sequence[str]:
        """What was not as expected."""
        return tuple(text for is_wrong, text in self._checks() if is_wrong)

    def document(self) -> dict[str, Any]:
        """All of it for `--output json`."""
        return {
            "batch": None if self.batch is None else self.batch.model_dump(mode="json"),
            "pages": self.pages,
            "waited": self.waits,
            "stopped_s": self.stopped_s,
            "complaints": list(self.complaints()),
        }

    def _checks(self) -> Sequence[tuple[bool, str]]:
        count, batch = len(self._pages), self.batch
        return (
            (batch is None or batch.succeeded != count, f"{ALBUM}: not all {count} pages succeeded"),
            (self.pages != count, f"{ALBUM}: {self.pages} pages, not {count}"),
            (count > 1 and not self.waits, f"{ALBUM}: no page waited for the mutex"),
            (self.stopped_s is None, f"{PANORAMA}: its run was not cancelled"),
        )

    @property
    def _has_stopped(self) -> bool:
        return Workspace(self._workspace).stopped.exists()

    def _look_at_page(self, job_id: str) -> None:
        if job_id in self.waits:
            return
        page = self._monitor.job(job_id)
        held = page and next((one for one in page.history if one.type == "job.held"), None)
        if held:
            self.waits[job_id] = str(held.data["waits_for"]).replace(job_id, "itself")

    def _cancel(self) -> None:
        """Delete the panorama when its run has told how far it is."""
        job = self.panorama
        if job is None or job.state is not PROCESSING or job.progress is None:
            return
        if self._say("running", PANORAMA, "cancelled", PROCESSING, job.progress.text or ""):
            self._client.delete(self._panorama_id, reason="the panorama is not needed any more")

    def _tell(self) -> None:
        if self.waits:
            self._say("waits", ALBUM, "mutex", State.ENQUEUED, f"waits for {next(iter(self.waits.values()))}")
        batch, closing, panorama = self.batch, self.closing, self.panorama
        if batch is not None and batch.state in FINAL_STATES:
            self._say("batch", ALBUM, "batch", batch.state, f"{batch.succeeded} of {batch.total} pages")
        if closing is not None and closing.state in FINAL_STATES:
            self._say("closing", ALBUM, "continued", closing.state, f"{self.pages} pages in one picture")
        if panorama is not None and panorama.state in FINAL_STATES and self._has_stopped:
            self._say("stopped", PANORAMA, "cancelled", panorama.state, f"its run stopped {self.stopped_s} s later")

    def _say(self, what: str, name: str, kind: str, state: State, text: str) -> bool:
        """Tell something once; whether this was the first time."""
        if what in self._said:
            return False
        self._said.add(what)
        self._told(name, kind, state, text)
        return True
