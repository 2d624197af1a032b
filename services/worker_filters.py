"""Worker filters: code of the user's around every run."""

from typing import Protocol, TypeAlias

from joblog.services.context import JobContext
from joblog.services.worker_run import Failed, Succeeded

Ended: TypeAlias = Succeeded | Failed


class WorkerFilter(Protocol):
    """Called around each run, in its thread; an error in a filter fails the run.

    Around async tasks both are called on the event loop, so they must not block it.
    """

    def before_run(self, context: JobContext) -> None:
        """Called before the task; whatever it raises becomes the run's failure, and the task is not called."""

    def after_run(self, context: JobContext, outcome: Ended) -> None:
        """Called with what will be reported, also after a failure."""
