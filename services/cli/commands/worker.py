"""`joblog worker`: a worker itself, and the commands that tell one what to do."""

from typing import Annotated

import typer
from joblog.services.cli.commands.roles import HttpPort
from joblog.services.cli.context import note
from joblog.services.cli.values import ByOption, Queues, ReasonOption, from_here, given, settings_of, who
from joblog.services.client.client import Client
from joblog.services.roles import worker as wiring_worker
from joblog.services.roles.runner import run_role
from joblog.services.worker.leaving import THREADS_S, leave_within
from joblog.streams.errors import InvalidData

app = typer.Typer(invoke_without_command=True)

WorkerId = Annotated[str, typer.Argument(metavar="WORKER", help="The worker's id, as `joblog workers` lists it.")]


@app.callback()
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
    """Run a worker: it runs the jobs of your tasks; or, with a command, tells one to rest, go on or stop.

    Modules are also imported from the current directory. On SIGTERM, running jobs may finish first.

    Example: joblog worker --tasks myapp.tasks --queues critical,default --slots 8
    """
    chosen = given(tasks=tasks, queues=queues, slots=slots, prefetch=prefetch, name=name)
    if ctx.invoked_subcommand is not None:
        if chosen or http_port is not None:
            raise InvalidData(f"the options of a worker have no effect on `joblog worker {ctx.invoked_subcommand}`")
        return
    settings = settings_of(ctx, worker=chosen, http=given(port=http_port))
    from_here()
    code = run_role("worker", wiring_worker.worker(settings), settings)
    leave_within(THREADS_S, code)
    raise typer.Exit(code)


@app.command()
def quiet(ctx: typer.Context, worker_id: WorkerId, *, reason: ReasonOption = None, by: ByOption = None) -> None:
    """Give a worker no more jobs; it finishes what it runs, and waits to be resumed or stopped.

    Example: joblog worker quiet web-1:4711:0a1b2c3d@2 --reason "deployment"
    """
    with Client.from_settings(settings_of(ctx)) as client:
        client.workers.quiet(worker_id, by=who(by), reason=reason)
    note(f"{worker_id} will get no more jobs: `joblog workers`, or `joblog rejected list` if it is not there")


@app.command()
def resume(ctx: typer.Context, worker_id: WorkerId, *, reason: ReasonOption = None, by: ByOption = None) -> None:
    """Give a worker jobs again that was told to take no more.

    Example: joblog worker resume web-1:4711:0a1b2c3d@2
    """
    with Client.from_settings(settings_of(ctx)) as client:
        client.workers.resume(worker_id, by=who(by), reason=reason)
    note(f"{worker_id} will get jobs again: `joblog workers`, or `joblog rejected list` if it is not there")


@app.command()
def stop(ctx: typer.Context, worker_id: WorkerId, *, reason: ReasonOption = None, by: ByOption = None) -> None:
    """Stop a worker in order, as SIGTERM does: what does not end within its grace time is given back.

    Its process ends with code 0; a supervisor that restarts what ended, as `joblog up` does, starts it again.

    Example: joblog worker stop web-1:4711:0a1b2c3d@2
    """
    with Client.from_settings(settings_of(ctx)) as client:
        client.workers.stop(worker_id, by=who(by), reason=reason)
    note(f"{worker_id} will stop: `joblog workers`, or `joblog rejected list` if it is not there")
