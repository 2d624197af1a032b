"""`joblog hooks`."""

from typing import Annotated

import typer
from joblog.services.cli.commands.roles import HttpPort
from joblog.services.cli.values import from_here, given, settings_of
from joblog.services.roles import hooks as wiring_hooks
from joblog.services.roles.runner import run_role
from joblog.services.worker.leaving import THREADS_S, leave_within


def hooks(
    ctx: typer.Context,
    *,
    modules: Annotated[str | None, typer.Option(help="Modules with hooks, separated by commas.")] = None,
    http_port: HttpPort = None,
) -> None:
    """Run hooks: they are told of the transitions of jobs.

    Modules are also imported from the current directory. Start several to share the lanes; if one dies, the others
    take over. Each transition is told at least once, those of a job in their order. What a hook raised for several
    times is in `joblog deadletters list`.

    JOBLOG_HOOKS__START=earliest tells a new group of all that the log holds; JOBLOG_HOOKS__ATTEMPTS and __DELAY_S say
    how often a function that raises is called again.

    Example: joblog hooks --modules myapp.hooks
    """
    settings = settings_of(ctx, hooks=given(modules=modules), http=given(port=http_port))
    from_here()
    code = run_role("hooks", wiring_hooks.hooks(settings), settings)
    leave_within(THREADS_S, code)
    raise typer.Exit(code)
