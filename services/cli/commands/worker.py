"""`joblog worker`."""

from typing import Annotated

import typer
from joblog.services.cli.commands.roles import HttpPort
from joblog.services.cli.values import Queues, from_here, given, settings_of
from joblog.services.roles import worker as wiring_worker
from joblog.services.roles.runner import run_role
from joblog.services.worker.leaving import THREADS_S, leave_within


def worker(
    ctx: typer.Context,
    *,
    tasks: Annotated[str | None, typer.Option(help="Modules with tasks, separated by commas.")] = None,
    queues: Queues = None,
    slots: Annotated[
        int | None, typer.Option(help="Number of jobs to run at once.", show_default="5 for each core, 20 at most")
    ] = None,
    prefetch: Annotated[
        int | None, typer.Option(help="Number of extra jobs to prefetch; useful for short jobs.", show_default="0")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of this worker.", show_default="the host's name")] = None,
    http_port: HttpPort = None,
) -> None:
    """Run a worker: it runs the jobs of your tasks.

    Modules are also imported from the current directory. On SIGTERM, running jobs may finish first.

    Example: joblog worker --tasks myapp.tasks --queues critical,default --slots 8
    """
    chosen = given(tasks=tasks, queues=queues, slots=slots, prefetch=prefetch, name=name)
    settings = settings_of(ctx, worker=chosen, http=given(port=http_port))
    from_here()
    code = run_role("worker", wiring_worker.worker(settings), settings)
    leave_within(THREADS_S, code)
    raise typer.Exit(code)
