"""A demonstration from its first request to its last clean-up: runs producer, manager and monitor."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from typing import Final

from joblog.projections.monitor.models import JobDetails
from joblog.projections.monitor.monitor import Monitor
from joblog.services.client.client import Client
from joblog.services.detection.album import Album
from joblog.services.detection.console import Printer
from joblog.services.detection.manager import RETRIES, RUN_DELAY, JobManager, manage, run_of
from joblog.services.detection.monitor import RunMonitor, Step
from joblog.services.detection.names import RUN_QUEUE
from joblog.services.detection.producer import RequestProducer
from joblog.services.detection.report import Result
from joblog.services.detection.requests import TOPIC, RunRequested, RunWithdrawn, create_topic
from joblog.services.detection.stage import Stage
from joblog.services.detection.stories import PlannedRun, Upload
from joblog.services.detection.surveys import Surveys, define
from joblog.services.detection.uploads import UPLOADS, ImageUploaded
from joblog.services.detection.workspace import TRUNCATED_SHARE, Workspace, upload
from joblog.streams.contract.states import State
from joblog.streams.errors import StackError

#: How long the roles may take to become ready.
READY_TIMEOUT_S: Final = 90.0
#: How long each run may take besides its delays, and all runs together.
RUN_S: Final = 3.0
SLACK_S: Final = 60.0
_LOOK_S: Final = 0.2


class Uploads:
    """Uploads the photographs of runs: some damaged, some late, some never."""

    def __init__(self, workspace: Workspace, runs: Sequence[PlannedRun], printer: Printer) -> None:
        self._workspace = workspace
        self._late = {run.run_id: run for run in runs if run.story.upload is Upload.LATE}
        self._printer = printer

    def begin(self, run: PlannedRun) -> str:
        """Upload what arrives at once; returns the path of the photograph."""
        photograph = run.story.photograph
        path = self._workspace.upload_path(run.run_id, photograph)
        match run.story.upload:
            case Upload.WHOLE:
                upload(photograph, path)
            case Upload.TRUNCATED:
                upload(photograph, path, share=TRUNCATED_SHARE)
            case Upload.LATE | Upload.NEVER:
                pass
        return str(path)

    def on_failed(self, step: Step) -> None:
        """Upload a late photograph, while the job waits for its retry."""
        if not step.is_cleanup and (run := self._late.pop(step.run_id, None)):
            upload(run.story.photograph, self._workspace.upload_path(run.run_id, run.story.photograph))
            self._printer.note(run.run_id, f"the upload of {run.story.photograph} has finished")


@dataclass(frozen=True, slots=True)
class Show:
    """A running demonstration."""

    stage: Stage
    planned: Sequence[PlannedRun]
    minute: timedelta
    uploads: Uploads
    client: Client
    producer: RequestProducer
    teller: RequestProducer
    monitor: Monitor
    runs: RunMonitor
    surveys: Surveys
    album: Album
    managing: Future[None]

    def wait_until_ready(self) -> None:
        """Wait until all roles are ready and a worker serves the runs' queue; StackError if that takes too long."""
        if not self._look_until(self._is_ready, READY_TIMEOUT_S):
            reasons = "; ".join(f"{role}: {reason}" for role, reason in self.stage.unready().items())
            raise StackError(
                f"not ready after {READY_TIMEOUT_S:.0f} s: {reasons or f'no worker has queue {RUN_QUEUE}'}; "
                f"see {self.stage.logs}"
            )

    def request(self) -> None:
        """Define the surveys, tell of uploads, request the other runs, withdraw some, and begin the album."""
        define(self.client, self.stage.directory, self.minute)
        for run in self.planned:
            photograph = self.uploads.begin(run)
            if run.starts_by_upload:
                self.teller.send(ImageUploaded(run_id=run.run_id, photograph=photograph))
                self.runs.watch(run_of(run.run_id, self.stage.lanes))
            else:
                self.producer.send(RunRequested(run_id=run.run_id, photograph=photograph))
        for run in self.planned:
            if run.story.withdrawn:
                self.producer.send(RunWithdrawn(run_id=run.run_id))
        self.album.begin([run.story.photograph for run in self.planned])

    def watch(self) -> None:
        """Watch until all runs and some surveys have ended, or the deadline has passed."""
        self._look_until(self._have_ended, deadline_s(self.minute, len(self.planned)))

    def stay(self) -> None:
        """Watch until interrupted: ended jobs may be requeued."""
        while True:
            self._turn(at_ended=True)

    @property
    def jobs(self) -> Sequence[JobDetails]:
        """The detections as last read."""
        return [result.detection for result in self.results() if result.detection is not None]

    def results(self) -> Sequence[Result]:
        return [Result(run, *self.runs.jobs_of(run.run_id)) for run in self.planned]

    def _have_ended(self) -> bool:
        return self.runs.ended == len(self.planned) and self.surveys.is_enough and self.album.has_ended

    def _is_ready(self) -> bool:
        if self.stage.unready():
            return False
        return any(worker.state == "running" and RUN_QUEUE in worker.queues for worker in self.monitor.workers())

    def _look_until(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline:
                return False
            self._turn()
        return True

    def _turn(self, *, at_ended: bool = False) -> None:
        """Check the processes and the manager, and react to what the runs did."""
        self.stage.check()
        if self.managing.done():
            self.managing.result()
        self.runs.look(at_ended=at_ended)
        self.surveys.look()
        self.album.look()
        time.sleep(_LOOK_S)


@contextmanager
def opened(stage: Stage, planned: Sequence[PlannedRun], minute: timedelta, printer: Printer) -> Iterator[Show]:
    """A demonstration on this stage; its manager runs until it is left."""
    topic, stop = stage.names.prefix + TOPIC, Event()
    create_topic(stage.kafka, topic)
    workspace = Workspace(stage.directory)
    workspace.create()
    uploads = Uploads(workspace, planned, printer)
    with ExitStack() as cleanup:
        monitor = cleanup.enter_context(Monitor(stage.dsn, stage.schema))
        runs = RunMonitor(monitor, reactions(printer, uploads))
        producer = cleanup.enter_context(closing(RequestProducer(stage.kafka, topic)))
        teller = cleanup.enter_context(closing(RequestProducer(stage.kafka, stage.names.prefix + UPLOADS)))
        client = cleanup.enter_context(Client(stage.kafka, stage.names, stage.lanes, name="detection-manager"))
        surveys = Surveys(monitor, printer.survey)
        album = Album(client, monitor, stage.directory, printer.album)
        manager = JobManager(client, stage.lanes, stage.directory, minute, runs.watch)
        threads = cleanup.enter_context(ThreadPoolExecutor(1, "detection-manager"))
        cleanup.callback(stop.set)
        managing = threads.submit(manage, manager, stage.kafka, topic, f"{stage.names.prefix}manager", stop)
        yield Show(stage, planned, minute, uploads, client, producer, teller, monitor, runs, surveys, album, managing)


def reactions(printer: Printer, uploads: Uploads) -> dict[State, Callable[[Step], None]]:
    """What to do when a job enters a state; nothing for Enqueued and Awaiting."""

    def processing(step: Step) -> None:
        if not step.is_cleanup:  # clean-ups take milliseconds: their end is enough
            printer.step(step)

    def failed(step: Step) -> None:
        printer.step(step)
        uploads.on_failed(step)

    printed = (State.SCHEDULED, State.SUCCEEDED, State.DELETED)
    return {**dict.fromkeys(printed, printer.step), State.PROCESSING: processing, State.FAILED: failed}


def deadline_s(minute: timedelta, runs: int) -> float:
    """Seconds from the request by which all runs must have ended: the last retry, the work, and some slack."""
    waits = RUN_DELAY + minute * (2**RETRIES - 1)
    return waits / timedelta(seconds=1) + runs * RUN_S + SLACK_S
