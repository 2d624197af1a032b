"""`joblog queue ...`: show, pause, drain, resume and configure queues."""

import time
from collections.abc import Callable
from datetime import datetime
from math import inf
from typing import Annotated, Final

import typer
from joblog.projections.monitor.models import LanePause, QueueLimit
from joblog.projections.monitor.monitor import Monitor
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.progress import STOPPED, Shown, shown
from joblog.services.cli.values import ByOption, ReasonOption, parse_due, settings_of, who
from joblog.services.client.client import Client
from joblog.streams.contract.fields import is_queue, wrong_queue
from joblog.streams.contract.states import State
from joblog.streams.errors import InvalidData, JoblogError
from joblog.streams.progress import Stopped

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]
For = Annotated[str | None, typer.Option("--for", help="Pause for so long: 90s, 15m, 1.5h, 2d.")]
Until = Annotated[str | None, typer.Option(help="Pause until an ISO 8601 time; UTC if it has no zone.")]

#: How often the tables are looked at while a queue drains, seconds.
LOOK_S: Final = 0.3


@app.callback()
def about_queues() -> None:
    """Show, pause, drain, resume and configure queues."""


@app.command("list")
def list_queues(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the queues that have jobs or workers, or are paused or limited, with the jobs in each state.

    Example: joblog queue list --output json
    """
    with monitor_of(settings_of(ctx)) as monitor:
        found = monitor.queues()
    rows = [one.model_dump(mode="json") for one in found]
    if output is Output.JSON:
        print_rows(rows, (), output)
        return
    # All states side by side are wider than most terminals; empty ones are left out.
    states = [state for state in State if any(one.counts[state] for one in found)]
    rare = [name for name in ("pause", "limit") if any(getattr(one, name) for one in found)]
    shown_rows = [
        {**row, **row["counts"], "pause": one.pause and one.pause.state, "limit": one.limit and _limit(one.limit)}
        for row, one in zip(rows, found, strict=True)
    ]
    print_rows(shown_rows, ("name", "workers", "oldest_waiting_s", *rare, *states), output)


@app.command()
def show(ctx: typer.Context, queue: Name, output: OutputOption = Output.TABLE) -> None:
    """Show a queue: its jobs by state, those that wait longest, its limit, and why it is paused.

    Example: joblog queue show images
    """
    _checked(queue)
    with monitor_of(settings_of(ctx)) as monitor:
        found = next((one for one in monitor.queues() if one.name == queue), None)
        pauses = monitor.pauses(queue)
    if found is None:
        raise JoblogError(f"the queue {queue} has no jobs, no workers, no pause and no limit: `joblog queue list`")
    document = found.model_dump(mode="json" if output is Output.JSON else "python")
    if output is Output.JSON:
        print_document({**document, "pauses": [one.model_dump(mode="json") for one in pauses]}, output)
        return
    waiting, counts = document.pop("first_jobs"), document.pop("counts")
    limit = document.pop("limit")
    if found.limit is not None:
        document |= {"limit": _limit(found.limit), "limit_by": limit["set_by"], "limit_reason": limit["reason"]}
    document = {name: value for name, value in {**document, **counts}.items() if value not in (None, 0, ())}
    print_document({name: value for name, value in document.items() if name != "pause"}, output)
    for name, rows, columns in (
        ("paused", [one.model_dump() for one in pauses], ("lane", "state", "since", "until", "paused_by", "reason")),
        ("waits longest", waiting, ("id", "task", "priority", "since")),
    ):
        if rows:
            print(f"\n{name}")
            print_rows(rows, columns, output)


@app.command()
def pause(
    ctx: typer.Context,
    queue: Name,
    *,
    for_: For = None,
    until: Until = None,
    reason: ReasonOption = None,
    by: ByOption = None,
) -> None:
    """Start no more jobs of a queue, for good or for a time; those that run go on.

    What workers have prefetched counts as started: it runs, or comes back to wait within a second.

    Example: joblog queue pause images --reason "the disk is full" --for 1h
    """
    _checked(queue)
    instant = _instant(for_, until)
    with Client.from_settings(settings_of(ctx)) as client:
        client.queues.pause(queue, until=instant, by=who(by), reason=reason)
    note(f"{queue} will be paused{f' until {instant.isoformat()}' if instant else ''}: `joblog queue show {queue}`")


@app.command()
def resume(ctx: typer.Context, queue: Name, *, reason: ReasonOption = None, by: ByOption = None) -> None:
    """Start jobs of a queue again.

    Example: joblog queue resume images
    """
    _checked(queue)
    with Client.from_settings(settings_of(ctx)) as client:
        client.queues.resume(queue, by=who(by), reason=reason)
    note(f"{queue} will be resumed")


@app.command()
def configure(
    ctx: typer.Context,
    queue: Name,
    *,
    shards: Annotated[int | None, typer.Option(min=1, help="Over how many lanes to spread new jobs.")] = None,
    as_set: Annotated[bool, typer.Option("--as-set", help="Over as many as the setting queue_shards says.")] = False,
    reason: ReasonOption = None,
    by: ByOption = None,
) -> None:
    """Spread the new jobs of a queue over more or fewer lanes, while all is running.

    Running clients hear of it within a second or two. Jobs that are there are run in their lanes; those with keys
    (idempotency, unique) go where the setting queue_shards says, however a queue is spread, so that keys hold.

    Example: joblog queue configure images --shards 4 --reason "the holidays"
    """
    _checked(queue)
    if (shards is None) is not as_set:
        raise InvalidData("give --shards or --as-set, and not both")
    if as_set and (reason or by):
        raise InvalidData("--reason and --by have no effect with --as-set: leave them out")
    with Client.from_settings(settings_of(ctx)) as client:
        client.queues.configure(queue, shards=shards, by=None if as_set else who(by), reason=reason)
    note(f"{queue} will be spread {'as queue_shards says' if as_set else f'over {shards} lanes'}")


@app.command()
def configured(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the queues whose number of lanes was set by `configure`.

    Example: joblog queue configured --output json
    """
    with Client.from_settings(settings_of(ctx)) as client:
        found = client.queues.configured()
    rows = [{"queue": queue, **one.model_dump(mode="json")} for queue, one in sorted(found.items())]
    print_rows(rows, ("queue", "shards", "by", "reason"), output)


@app.command()
def drain(
    ctx: typer.Context,
    queue: Name,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until none of its jobs runs; needs Postgres.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="With --wait: give up after so many seconds.", show_default="never"),
    ] = None,
    for_: For = None,
    until: Until = None,
    reason: ReasonOption = None,
    by: ByOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Pause a queue, and tell when none of its jobs runs any more; it stays paused until it is resumed.

    Jobs that wait stay in the queue. Exit codes with --wait: 0 drained, 1 not in time, 130 stopped by Ctrl-C; it goes
    on draining in both cases.

    Example: joblog queue drain images --wait --reason "deployment"
    """
    _checked(queue)
    if not wait and (timeout is not None or output is not Output.TABLE):
        raise InvalidData("--timeout and --output have no effect without --wait: add it, or leave them out")
    settings, instant = settings_of(ctx), _instant(for_, until)
    with Client.from_settings(settings) as client:
        if not wait:
            client.queues.drain(queue, until=instant, by=who(by), reason=reason)
            note(f"{queue} will be drained: `joblog queue show {queue}` tells when no job of it runs")
            return
        with monitor_of(settings) as monitor:
            before = {one.lane: one for one in monitor.pauses(queue)}
            client.queues.drain(queue, until=instant, by=who(by), reason=reason)

            def is_drained() -> bool:
                now = {one.lane: one for one in monitor.pauses(queue)}
                return all(_is_drained(now.get(lane), before.get(lane)) for lane in range(settings.lanes))

            raise typer.Exit(_waited(monitor, queue, is_drained, timeout, output))


def _is_drained(now: LanePause | None, before: LanePause | None) -> bool:
    """Whether a lane has drained the queue since it was as before."""
    return now is not None and now.state == "drained" and (before is None or now.since != before.since)


def _instant(for_: str | None, until: str | None) -> datetime | None:
    """When a pause ends; None if somebody has to resume the queue."""
    if for_ is not None and until is not None:
        raise InvalidData("give --for or --until, not both")
    return parse_due(for_, until)


def _waited(
    monitor: Monitor, queue: str, is_drained: Callable[[], bool], timeout_s: float | None, output: Output
) -> int:
    """Wait, and show how many jobs run; returns the exit code."""
    deadline, most = time.monotonic() + (inf if timeout_s is None else timeout_s), 0
    try:
        with shown(output) as told:
            while not is_drained():
                most = _tell(monitor, queue, most, told)
                if time.monotonic() > deadline:
                    note(f"{queue} is not drained yet: {most} jobs ran at most; it stays paused")
                    return 1
                time.sleep(LOOK_S)
    except Stopped:
        note(f"{queue} goes on draining, and stays paused until `joblog queue resume {queue}`")
        return STOPPED
    note(f"{queue} is drained; it stays paused until `joblog queue resume {queue}`")
    return 0


def _tell(monitor: Monitor, queue: str, most: int, told: Shown) -> int:
    running = next((one.counts[State.PROCESSING] for one in monitor.queues() if one.name == queue), 0)
    most = max(most, running)
    told("draining", most - running, most)
    return most


def _limit(limit: QueueLimit) -> str:
    """A limit in a line."""
    interval = "" if limit.interval_s is None else f" in {limit.interval_s:g} s"
    return f"{limit.kind.replace('_', ' ')}: {limit.capacity}{interval}"


def _checked(queue: str) -> None:
    if not is_queue(queue):
        raise InvalidData(wrong_queue(queue))
