"""`@recurring`: a task that declares when it runs by itself."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from joblog.services.tasks.task import Task
from joblog.streams.contract.recurring import Misfire, Overlap
from joblog.streams.errors import SettingsError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Recurrence:
    """One declaration: `fields` are those of the definition that are no option of each job (`options`)."""

    id: str
    schedule: str | timedelta
    anchor: datetime | None
    options: Any
    fields: Mapping[str, Any]


def recurring(
    schedule: str | timedelta,
    *,
    id: str | None = None,  # noqa: A002 - as everywhere
    zone: str = "UTC",
    anchor: datetime | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    misfire: Misfire | str = Misfire.RELAXED,
    misfire_cap: int = 100,
    misfire_tolerance_s: int = 30,
    overlap: Overlap | str = Overlap.ALLOW,
    options: Any = None,
) -> Callable[[Task[P, R]], Task[P, R]]:
    """Declare that a task runs by itself; stands above `@task`, more than once if the ids differ.

    ::

        @recurring("0 2 * * *", zone="Europe/Berlin")
        @task("reports.send")
        def send() -> None: ...

    The id is the task's name if none is given. A process that is started with `--tasks` registers the definition (a
    worker, or `joblog recurring`), and leaves a pause as it is. The arguments are those of
    `client.recurring.add_or_update`. What was declared and is not any more stays until it is removed.
    """

    def declared(task: Task[P, R]) -> Task[P, R]:
        if not isinstance(task, Task):
            raise SettingsError(f"@recurring stands above @task, but {task!r:.60} is no task")
        fields = {
            "zone": zone,
            "args": tuple(args),
            "kwargs": dict(kwargs or {}),
            "misfire": misfire,
            "misfire_cap": misfire_cap,
            "misfire_tolerance_s": misfire_tolerance_s,
            "overlap": overlap,
        }
        task.recurrences = (*task.recurrences, Recurrence(id or task.name, schedule, anchor, options, fields))
        return task

    return declared


def recurrences_of(tasks: Iterable[Task[..., Any]]) -> dict[str, tuple[Task[..., Any], Recurrence]]:
    """What these tasks declare, by id; SettingsError when two have one id."""
    found: dict[str, tuple[Task[..., Any], Recurrence]] = {}
    for task in tasks:
        for one in task.recurrences:
            other = found.setdefault(one.id, (task, one))
            if other[1] is not one:
                raise SettingsError(
                    f"two recurring jobs have the id {one.id}, of the tasks {other[0].name} and {task.name}: "
                    "give one of them id=..."
                )
    return found
