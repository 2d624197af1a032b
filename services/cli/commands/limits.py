"""`joblog limits`: which jobs run with each limit, and which wait for it."""

from typing import Annotated, Any

import typer
from joblog.services.cli.context import Output, OutputOption
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.values import settings_of
from joblog.streams.contract.relations import LimitKind
from joblog.streams.errors import InvalidData

app = typer.Typer(no_args_is_help=True)

Kind = Annotated[LimitKind, typer.Argument(case_sensitive=False, help="The kind of limit.")]
Key = Annotated[str, typer.Argument(help="The limit's key.")]


@app.callback()
def about_limits() -> None:
    """Show limits: which jobs run with each, and which wait for it."""


@app.command("list")
def list_limits(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the limits that jobs run with or wait for.

    Example: joblog limits list
    """
    with monitor_of(settings_of(ctx)) as monitor:
        found = monitor.limits()
    rows = [one.model_dump(mode="json") for one in found]
    if output is Output.TABLE:
        rows = [
            {**row, "running": len(row["running"]), "held_by": _holder(row["running"])}
            for row, one in zip(rows, found, strict=True)
        ]
    print_rows(rows, ("kind", "key", "capacity", "interval_s", "running", "waiting", "held_by"), output)


@app.command()
def show(ctx: typer.Context, kind: Kind, key: Key, output: OutputOption = Output.TABLE) -> None:
    """Show which jobs run with a limit, and which of those that wait for it have waited longest.

    Example: joblog limits show mutex invoice-7
    """
    with monitor_of(settings_of(ctx)) as monitor:
        found = [one for one in monitor.limits() if (one.kind, one.key) == (kind, key)]
    if not found:
        raise InvalidData(f"no job runs with the {kind} {key!r}, or waits for it: see `joblog limits list`")
    document: dict[str, Any] = found[0].model_dump(mode="json")
    if output is Output.JSON:
        print_document(document, output)
        return
    waiting = document.pop("first_waiting")
    print_document({**document, "running": " ".join(document["running"])}, output)
    if waiting:
        print("\nwaiting")
        print_rows(waiting, ("id", "since", "tenant", "waits_for"), output)


def _holder(running: list[str]) -> str | None:
    return running[0] if len(running) == 1 else None
