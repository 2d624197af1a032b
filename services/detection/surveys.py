"""The recurring job of the detection service: every two minutes it counts what has arrived and what is marked."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from joblog.projections.database import DatabaseAway
from joblog.projections.monitor.models import Job
from joblog.projections.monitor.monitor import Monitor
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.services.detection.names import CLEANUP_QUEUE, SURVEY, SURVEY_TASK
from joblog.streams.contract.states import FINAL_STATES, State

log = logging.getLogger(__name__)

#: So many surveys must have succeeded at the end.
SURVEYS_MIN: Final = 2
_LISTED: Final = 100


def interval_of(minute: timedelta) -> timedelta:
    """Two minutes, in whole seconds."""
    return timedelta(seconds=max(1, round(2 * minute / timedelta(seconds=1))))


def define(client: Client, workspace: Path, minute: timedelta) -> None:
    """Write the definition; its jobs begin with the next multiple of the interval."""
    client.recurring.add_or_update(
        SURVEY,
        SURVEY_TASK,
        interval_of(minute),
        kwargs={"workspace": str(workspace)},
        options=JobOptions(queue=CLEANUP_QUEUE),
    )


class Surveys:
    """Reads the surveys from the projection; calls `on_ended` for each one that has ended."""

    def __init__(self, monitor: Monitor, on_ended: Callable[[Job], None]) -> None:
        self._monitor: Final = monitor
        self._on_ended: Final = on_ended
        self._ended: Final[dict[str, State]] = {}

    def look(self) -> None:
        """Read the newest ones."""
        try:
            page = self._monitor.jobs(task=SURVEY_TASK, state=FINAL_STATES, limit=_LISTED)
        except DatabaseAway as exc:
            log.warning("detection.monitor.waiting", extra={"reason": str(exc)})
            return
        for job in reversed(page.items):
            if job.id not in self._ended:
                self._ended[job.id] = job.state
                self._on_ended(job)

    @property
    def states(self) -> Counter[State]:
        """How many have ended, by state."""
        return Counter(self._ended.values())

    @property
    def is_enough(self) -> bool:
        """Whether as many have succeeded as a demonstration waits for."""
        return self.states[State.SUCCEEDED] >= SURVEYS_MIN

    def complaints(self) -> Sequence[str]:
        """What was not as expected."""
        succeeded = self.states[State.SUCCEEDED]
        return () if self.is_enough else (f"{succeeded} survey(s) succeeded, fewer than {SURVEYS_MIN}",)
