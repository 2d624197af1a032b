"""The trigger of the detection service: a photograph that has arrived starts a run.

Topic prefix and lanes come from Joblog's settings, what is the service's own from `DETECTION_WORKSPACE` and
`DETECTION_MINUTE_S` (stage.py).
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Final

from joblog.services.detection.manager import RUN_DELAY, options_of, retry_policy, run_of
from joblog.services.detection.names import CLEANUP_QUEUE, CLEANUP_TASK, MINUTE_S, RUN_QUEUE, RUN_TASK, WORKSPACE
from joblog.services.detection.uploads import UPLOADS, ImageUploaded
from joblog.services.settings.model import Settings
from joblog.services.triggers.jobs import Job
from joblog.services.triggers.trigger import trigger
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn
from joblog.streams.triggers.incoming import IncomingEvent

_settings: Final = Settings.load()


@trigger(topic=_settings.topic_prefix + UPLOADS, type="image.uploaded")
def start_run(event: IncomingEvent) -> list[Job]:
    """The detection of a photograph, and its clean-up."""
    uploaded = ImageUploaded.model_validate(event.data)
    retry = retry_policy(timedelta(seconds=float(os.environ[MINUTE_S])))
    return jobs_of(uploaded, event, Path(os.environ[WORKSPACE]), retry, _settings.lanes)


def jobs_of(
    uploaded: ImageUploaded, event: IncomingEvent, workspace: Path, retry: RetryPolicy, lanes: int
) -> list[Job]:
    """Both jobs of a run; the first waits a while after the upload, the second for the end of the first."""
    run = run_of(uploaded.run_id, lanes)
    detection = options_of(uploaded.run_id, RUN_QUEUE, retry, run_at=event.time + RUN_DELAY)
    cleanup = options_of(uploaded.run_id, CLEANUP_QUEUE, retry, parent=run.detection_job, on=ContinueOn.ENDED)
    place = str(workspace)
    return [
        Job(RUN_TASK, photograph=uploaded.photograph, workspace=place, options=detection),
        Job(CLEANUP_TASK, workspace=place, options=cleanup),
    ]
