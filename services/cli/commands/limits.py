"""`joblog limits`: which jobs run with each limit, and which wait for it; and other capacities while they run."""

from typing import Annotated, Any

import typer
from joblog.services.cli.context import Output, OutputOption
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.values import ByOption, ReasonOption, parse_delay, settings_of, who
from joblog.services.client.client import Client
from joblog.streams.contract.relations import LimitKind
from joblog.streams.errors import InvalidData

app = typer.Typer(no_args_is_help=True)

Kind = Annotated[LimitKind, typer.Argument(case_sensitive=False, help="The kind of limit.")]
Key = Annotated[str, typer.Argument(help="The limit's key.")]
Capacity = Annotated[
    int, typer.Argument(min=1, max=1_000_000, help="How many jobs run at a time, or start in an interval.")
]
PerOption = Annotated[str | None, typer.Option(help="The interval of a rate: 1s, 15m, 2d.")]


@app.callback()
def about_limits() -> None:
    """Show limits: which jobs run with each, and which wait; and change them."""


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


@app.command("set")
def set_limit(
    ctx: typer.Context,
    kind: Kind,
    key: Key,
    capacity: Capacity,
    *,
    per: PerOption = None,
    by: ByOption = None,
    reason: ReasonOption = None,
) -> None:
    """Let a limit have another capacity, whatever its jobs say, until it is cleared.

    Jobs that run go on. `joblog limits list` shows what the jobs say.

    Example: joblog limits set sliding_window mail 10 --per 1s
    """
    interval = None if per is None else parse_delay(per)
    with Client.from_settings(settings_of(ctx)) as client:
        client.limits.set(kind, key, capacity, per=interval, by=who(by), reason=reason)


@app.command()
def clear(ctx: typer.Context, kind: Kind, key: Key, *, by: ByOption = None, reason: ReasonOption = None) -> None:
    """Let a limit be as its jobs say, again.

    Example: joblog limits clear sliding_window mail
    """
    with Client.from_settings(settings_of(ctx)) as client:
        client.limits.clear(kind, key, by=who(by), reason=reason)


@app.command("set-queue")
def set_queue_limit(
    ctx: typer.Context,
    queue: Annotated[str, typer.Argument(help="The queue's name.")],
    kind: Kind,
    capacity: Capacity,
    *,
    per: PerOption = None,
    by: ByOption = None,
    reason: ReasonOption = None,
) -> None:
    """Give all jobs of a queue a limit, over all of its shards, until it is cleared.

    Example: joblog limits set-queue images semaphore 4
    """
    interval = None if per is None else parse_delay(per)
    with Client.from_settings(settings_of(ctx)) as client:
        client.limits.set_queue(queue, kind, capacity, per=interval, by=who(by), reason=reason)


@app.command("clear-queue")
def clear_queue_limit(
    ctx: typer.Context,
    queue: Annotated[str, typer.Argument(help="The queue's name.")],
    *,
    by: ByOption = None,
    reason: ReasonOption = None,
) -> None:
    """Take the limit of a queue away.

    Example: joblog limits clear-queue images
    """
    with Client.from_settings(settings_of(ctx)) as client:
        client.limits.clear_queue(queue, by=who(by), reason=reason)


def _holder(running: list[str]) -> str | None:
    return running[0] if len(running) == 1 else None
