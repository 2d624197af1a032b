"""Worker filters: user code that is called around every run.

`joblog worker` uses those that installed packages offer as entry points of the group `joblog.worker_filters`, by
their `order`, then their names; after them those of the job's task, `@task(filters=[...])` (tasks/scopes.py).
"""

from importlib.metadata import entry_points
from operator import attrgetter
from typing import Final, Protocol, TypeAlias

from joblog.services.tasks.context import JobContext
from joblog.services.worker.execution.results import Failed, Succeeded
from joblog.streams.plugins import make_filter

ENTRY_POINTS: Final = "joblog.worker_filters"
Ended: TypeAlias = Succeeded | Failed


class WorkerFilter(Protocol):
    """Called around each run, in its thread; an error in a filter fails the run.

    Around async tasks both are called on the event loop, so they must not block it.
    """

    def before_run(self, context: JobContext) -> None:
        """Called before the task; whatever it raises becomes the run's failure, and the task is not called."""

    def after_run(self, context: JobContext, outcome: Ended) -> None:
        """Called with what will be reported, also after a failure."""


def installed_worker_filters() -> tuple[WorkerFilter, ...]:
    """One of each; SettingsError names one that cannot be made."""
    return tuple(
        make_filter(found, attrgetter("before_run", "after_run"), "before_run and after_run")
        for found in sorted(entry_points(group=ENTRY_POINTS), key=lambda found: found.name)
    )
