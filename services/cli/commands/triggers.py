"""`joblog triggers`."""

from typing import Annotated

import typer
from joblog.services.cli.commands.roles import HttpPort
from joblog.services.cli.values import from_here, given, settings_of
from joblog.services.roles import triggers as wiring_triggers
from joblog.services.roles.runner import run_role
from joblog.services.worker.leaving import THREADS_S, leave_within


def triggers(
    ctx: typer.Context,
    *,
    modules: Annotated[str | None, typer.Option(help="Modules with triggers, separated by commas.")] = None,
    http_port: HttpPort = None,
) -> None:
    """Run triggers: they turn events of other services into jobs.

    Modules are also imported from the current directory. Start several to share the work; if one dies, the others
    take over. Each event makes its jobs once. Events that cannot be handled are in `joblog deadletters list`.

    JOBLOG_TRIGGERS__START=latest leaves out what was there before the first start; JOBLOG_TRIGGERS__ATTEMPTS and
    __DELAY_S say how often a function that raises is called again.

    Example: joblog triggers --modules myapp.triggers
    """
    settings = settings_of(ctx, triggers=given(modules=modules), http=given(port=http_port))
    from_here()
    code = run_role("triggers", wiring_triggers.triggers(settings), settings)
    leave_within(THREADS_S, code)
    raise typer.Exit(code)
