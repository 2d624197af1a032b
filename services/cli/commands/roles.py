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
        typer.Option("--id", help="Name of this elector, the same after a restart.", show_default="the host's name"),
    ] = None,
    http_port: HttpPort = None,
) -> None:
    """Run an elector: it decides what happens to jobs.

    Start several, on several machines, to share the lanes; if one dies, the others take its lanes over.
    Each needs an id of its own: of two electors with one id, one ends with exit code 75.

    Example: joblog elector --id elector-1 --http-port 9101
    """
    settings = settings_of(ctx, elector=given(id=name), http=given(port=http_port))
    raise typer.Exit(run_role("elector", wiring.elector(settings), settings))


def delays(ctx: typer.Context, http_port: HttpPort = None) -> None:
    """Run the delays process: it wakes scheduled jobs.

    Example: joblog delays --http-port 9102
    """
    settings = settings_of(ctx, http=given(port=http_port))
    raise typer.Exit(run_role("delays", wiring.delays(settings), settings))
