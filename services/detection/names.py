"""Names that the detection service's manager, worker and monitor share."""

from typing import Final

RUN_TASK: Final = "detection.run"
CLEANUP_TASK: Final = "detection.cleanup"
#: The recurring job, and its task.
SURVEY: Final = "survey"
SURVEY_TASK: Final = "detection.survey"
#: The album of all photographs: the batch of its pages, the key of the mutex on its file, and its tasks.
ALBUM: Final = "album"
PAGE_TASK: Final = "detection.page"
ALBUM_TASK: Final = "detection.album"
#: A long job that is cancelled while it runs, and its task.
PANORAMA: Final = "panorama"
PANORAMA_TASK: Final = "detection.panorama"
RUN_QUEUE: Final = "detection"
CLEANUP_QUEUE: Final = "default"
#: Parameters of every job of a run.
RUN_ID: Final = "detectionRunId"
PRIORITY: Final = "priority"
#: Variables by which the process of the trigger is told the service's own settings.
WORKSPACE: Final = "DETECTION_WORKSPACE"
MINUTE_S: Final = "DETECTION_MINUTE_S"
#: The name of the worker.
SERVER: Final = "DetectionServer"
