"""Whether the task of a recurring job is known: to modules that the command names, or else to running workers.

A task may be deployed after the definition that names it, so a name that only workers could know gives a note. Who
names the modules has said where the task is: a name that they do not have is refused.
"""

from typing import Annotated, Any

import typer
from joblog.services.cli.context import note
from joblog.services.cli.postgres import Aside, unserved
from joblog.services.cli.values import from_here, given, settings_of
from joblog.services.settings.errors import suggestion
from joblog.services.tasks.task import Task, TaskRegistry
from joblog.streams.contract.recurring import Definition
from joblog.streams.errors import InvalidData

TasksOption = Annotated[
    str | None, typer.Option("--tasks", help="Modules that have the task: a name that is not there is refused.")
]


def found_in(ctx: typer.Context, modules: str | None, task: str) -> Task[..., Any] | str:
    """The task in these modules, or just its name if none are given; InvalidData if they do not have it."""
    if modules is None:
        return task
    from_here()
    named = settings_of(ctx, recurring=given(tasks=modules)).recurring.tasks
    registry = TaskRegistry.load(*named)
    if task not in registry.names:
        raise InvalidData(f"{', '.join(named)} has no task {task!r:.210}{suggestion(task, list(registry.names))}")
    return registry.get(task)


def note_unserved(definition: Definition, aside: Aside) -> None:
    """Say so if no running worker would take the jobs of a definition, as far as Postgres knows."""
    running = aside.running()
    if running is not None and (waiting := unserved(definition.queue, definition.task, running)):
        note(f"note: its jobs wait: {waiting}")
