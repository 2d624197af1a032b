"""When rows of ended jobs leave Postgres."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from joblog.projections.expiry.rules import BATCH_MAX, Rules
from joblog.services.settings.sources import SecretFiles
from joblog.services.settings.values import QueueName, duration_s, mapped
from joblog.streams.contract.fields import TASK_PATTERN
from joblog.streams.contract.states import State
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_settings import NoDecode

#: What keeps something for ever.
OFF = "off"
_LONGEST_S = 100 * 365 * 86_400


def _kept(text: str) -> str:
    seconds = duration_s(text) if text != OFF else 0.0
    if seconds is None or seconds > _LONGEST_S:
        raise ValueError(f"{text!r:.30} is not a time to keep rows for: write 12h, 30d, or off to keep them for ever")
    return text


def _interval(text: str) -> str:
    seconds = duration_s(text)
    if seconds is None or not 0.1 <= seconds <= 86_400:
        raise ValueError(f"{text!r:.30} is not an interval: write 30s, 5m or 1h, one day at most")
    return text


KeptFor = Annotated[str, AfterValidator(_kept)]
TaskName = Annotated[str, StringConstraints(pattern=TASK_PATTERN)]
_Name = Literal["succeeded", "deleted", "failed"]


class ExpirySettings(SecretFiles):
    """When rows of ended jobs leave Postgres; the log keeps their events. Times are 90s, 15m, 12h or 30d, or `off`.

    - succeeded, deleted, failed: for how long the rows of jobs in these states are kept after their end.
    - batches: for how long the rows of batches are kept that Succeeded or were Deleted; those that Failed are kept as
      long as Failed jobs, if that is longer.
    - queues, tasks: other times for the jobs of these queues and tasks, such as {"audit": {"succeeded": "90d"}}; what
      is set for a task goes before what is set for its queue.
    - hours, days: for how long it is kept how many jobs ended in each hour and day.
    - check: how often it is looked for rows that have expired.
    - batch_max: rows to delete in one transaction.
    """

    succeeded: KeptFor = "1d"
    deleted: KeptFor = "1d"
    failed: KeptFor = "30d"
    batches: KeptFor = "7d"
    queues: Annotated[dict[QueueName, dict[_Name, KeptFor]], NoDecode, BeforeValidator(mapped)] = {}
    tasks: Annotated[dict[TaskName, dict[_Name, KeptFor]], NoDecode, BeforeValidator(mapped)] = {}
    hours: KeptFor = "45d"
    days: KeptFor = "1100d"
    check: Annotated[str, AfterValidator(_interval)] = "5m"
    batch_max: int = Field(BATCH_MAX, ge=1, le=10_000)

    @property
    def rules(self) -> Rules:
        """The rules that these settings say."""
        states: dict[str, Any] = {"succeeded": self.succeeded, "deleted": self.deleted, "failed": self.failed}
        return Rules(
            _by_state(states),
            {queue: _by_state(said) for queue, said in self.queues.items()},
            {task: _by_state(said) for task, said in self.tasks.items()},
            _seconds(self.hours),
            _seconds(self.days),
            self._of_batches,
        )

    @property
    def _of_batches(self) -> dict[State, float | None]:
        kept, failed = _seconds(self.batches), _seconds(self.failed)
        longer = None if kept is None or failed is None else max(kept, failed)
        return {State.SUCCEEDED: kept, State.DELETED: kept, State.FAILED: longer}

    @property
    def check_s(self) -> float:
        """How often to look, in seconds."""
        seconds = duration_s(self.check)
        assert seconds is not None
        return seconds


def _by_state(said: Mapping[Any, str]) -> dict[State, float | None]:
    return {State(name.capitalize()): _seconds(kept) for name, kept in said.items()}


def _seconds(kept: str) -> float | None:
    return None if kept == OFF else duration_s(kept)
