"""`joblog elector` and `joblog delays`."""

from typing import Annotated

import typer
from joblog.services.cli.values import given, settings_of
from joblog.services.roles import wiring
from joblog.services.roles.runner import run_role

HttpPort = Annotated[
    int | None,
    typer.Option(min=0, max=65_535, help="HTTP port for /livez, /readyz and /metrics.", show_default="any free one"),
]


def elector(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Option("--id", help="Name of this elector; keep it over restarts.", show_default="the host's name"),
    ] = None,
    http_port: HttpPort = None,
) -> None:
    """Run an elector: it decides what happens to jobs.

    Start several, on several machines, to share the lanes; if one dies, the others take its lanes over.
    Each needs its own id: if two electors have the same one, the first ends with exit code 75.

    Example: joblog elector --id elector-1 --http-port 9101
    """
    settings = settings_of(ctx, elector=given(id=name), http=given(port=http_port))
    raise typer.Exit(run_role("elector", wiring.elector(settings), settings))


def delays(ctx: typer.Context, http_port: HttpPort = None) -> None:
    """Run the delays process: it reports scheduled jobs when they are due.

    Start several to share the work; if one dies, the others take over.

    Example: joblog delays --http-port 9102
    """
    settings = settings_of(ctx, http=given(port=http_port))
    raise typer.Exit(run_role("delays", wiring.delays(settings), settings))
