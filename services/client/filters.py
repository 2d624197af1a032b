"""Client filters that come with Joblog: `@task(..., filters=[LatencyTimeout(60)])`, or `Client(filters=[...])`."""

from datetime import timedelta
from typing import Final

from joblog.services.client.options import JobDraft, with_options
from joblog.streams.contract.fields import SECONDS_MAX
from joblog.streams.contract.parameters import COMPLETION, ONCE
from joblog.streams.errors import SettingsError


class LatencyTimeout:
    """Jobs that have not started so long after their creation are deleted; `JobOptions.expires_in` goes before."""

    order = 0

    def __init__(self, limit: timedelta | float) -> None:
        self._limit_s: Final = limit / timedelta(seconds=1) if isinstance(limit, timedelta) else limit
        if not 0 < self._limit_s <= SECONDS_MAX:
            raise SettingsError(f"a latency time-out of {self._limit_s} s is not between 0 and {SECONDS_MAX} s")

    def on_creating(self, draft: JobDraft) -> JobDraft:
        if draft.options.expires_in is not None:
            return draft
        options = with_options(draft.options, expires_in=self._limit_s)
        return JobDraft(draft.task, draft.args, draft.kwargs, options)

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        """Nothing is left to do."""


class IdempotentCompletion:
    """A job that has Succeeded never runs again: to requeue or reschedule it is rejected (`completed`).

    It is kept in the job's parameter `Completion`.
    """

    order = 0

    def on_creating(self, draft: JobDraft) -> JobDraft:
        parameters = {**draft.options.parameters, COMPLETION: ONCE}
        return JobDraft(draft.task, draft.args, draft.kwargs, with_options(draft.options, parameters=parameters))

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        """Nothing is left to do."""
