"""The names that the detection service's manager, workers and monitor agree on."""

from typing import Final

RUN_TASK: Final = "detection.run"
CLEANUP_TASK: Final = "detection.cleanup"
RUN_QUEUE: Final = "detection"
CLEANUP_QUEUE: Final = "default"
#: Parameters that every job of a run has.
RUN_ID: Final = "detectionRunId"
PRIORITY: Final = "priority"
#: The worker.
SERVER: Final = "DetectionServer"
