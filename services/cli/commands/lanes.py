"""`joblog lanes`: which lanes work, why others do not, and what to do about it."""

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.values import settings_of
from joblog.services.settings.model import Settings
from joblog.streams.elector.lane_records import Action
from joblog.streams.elector.lanes_status import LaneStatus, give_order, lane_status, lane_statuses
from joblog.streams.elector.rebuild import rebuild_lane
from joblog.streams.errors import ElectorError, SettingsError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

app = typer.Typer(no_args_is_help=True)

POLL_S: Final = 0.5
LaneArgument = Annotated[int, typer.Argument(metavar="LANE", min=0, help="Number of the lane.")]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait until an elector has done it; 0: do not wait.")
]


@app.callback()
def lanes() -> None:
    """Show lanes, and repair those that were set aside.

    An elector sets a lane aside when it cannot go on with it; all other lanes go on.
    """


@app.command("list")
def list_lanes(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List all lanes: which elector has each, how much it has not read yet, and why it is set aside.

    Example: joblog lanes list
    """
    settings = settings_of(ctx)
    rows = (_row(one) for one in lane_statuses(settings.kafka.config(), settings.names, settings.lanes))
    print_rows(rows, ("lane", "condition", "owner", "commands_lag", "reports_lag", "code", "reason"), output)


@app.command()
def show(ctx: typer.Context, lane: LaneArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one lane, with the traceback if it was set aside for an error, and what helps.

    Example: joblog lanes show 3
    """
    settings = _settings(ctx, lane)
    print_document(_document(lane_status(settings.kafka.config(), settings.names, lane)), output)


@app.command()
def reload(ctx: typer.Context, lane: LaneArgument, wait: WaitOption = 15) -> None:
    """Ask the elector to load a lane again that was set aside.

    Example: joblog lanes reload 3
    """
    settings = _settings(ctx, lane)
    give_order(settings.kafka.config(), settings.names, lane, Action.RELOAD)
    _wait_until_it_works(settings, lane, wait)


@app.command()
def skip(ctx: typer.Context, lane: LaneArgument, wait: WaitOption = 15) -> None:
    """Let a lane go on without what is lost or cannot be read.

    For log_lost: go on with the oldest record that is left; jobs that were running count as lost, and run again.
    For state_unreadable: drop these records into the dead letters; if one was a job, the job is gone from the lane.

    Example: joblog lanes skip 3
    """
    settings = _settings(ctx, lane)
    give_order(settings.kafka.config(), settings.names, lane, Action.SKIP)
    _wait_until_it_works(settings, lane, wait)


@app.command()
def rebuild(
    ctx: typer.Context,
    lane: LaneArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read the events, and write nothing.")] = False,
    commands_offset: Annotated[
        int | None, typer.Option(min=0, help="Where to read commands on, if the group's offsets are lost.")
    ] = None,
    reports_offset: Annotated[
        int | None, typer.Option(min=0, help="Where to read reports on, if the group's offsets are lost.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a lane's state anew from the events, after the topic `state` was lost or became unreadable.

    The lane must be set aside. It reads on where the electors' group has committed; safe to repeat.

    Example: joblog lanes rebuild 3 --dry-run
    """
    settings = _settings(ctx, lane)
    columns = TextColumn("reading events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("events", total=None)
        done = rebuild_lane(
            settings.kafka.config(),
            settings.names,
            settings.lanes,
            lane,
            remembered=settings.elector.remembered,
            batches_ms=max(settings.elector.batches_ms, settings.elector.failed_ms),
            commands=commands_offset,
            reports=reports_offset,
            dry_run=dry_run,
            progress=lambda count, total: bar.update(task, completed=count, total=total),
        )
    print_document({"lane": lane, "dry_run": dry_run, **asdict(done)}, output)


def _settings(ctx: typer.Context, lane: int) -> Settings:
    settings = settings_of(ctx)
    if lane >= settings.lanes:
        raise SettingsError(f"there is no lane {lane}: the lanes are 0 to {settings.lanes - 1}")
    return settings


def _wait_until_it_works(settings: Settings, lane: int, seconds: float) -> None:
    """Say when the lane works, or why it still does not."""

    def status() -> LaneStatus:
        return lane_status(settings.kafka.config(), settings.names, lane)

    found = _wait(status, lambda one: one.order is None, seconds)
    if found.order is not None:
        note(f"lane {lane}: the order is in the log; an elector that has the lane, or gets it, follows it")
    elif found.aside is not None:
        raise ElectorError(f"lane {lane} is still set aside: {found.aside.reason}")
    else:
        note(f"lane {lane} works")


def _wait(ask: Callable[[], LaneStatus], is_done: Callable[[LaneStatus], bool], seconds: float) -> LaneStatus:
    deadline = time.monotonic() + seconds
    while not is_done(found := ask()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return found


def _row(status: LaneStatus) -> dict[str, Any]:
    aside = status.aside
    return {
        "lane": status.number,
        "condition": status.condition,
        "owner": status.owner,
        "commands": status.commands,
        "reports": status.reports,
        "commands_lag": status.commands_lag,
        "reports_lag": status.reports_lag,
        "code": aside.code if aside is not None else None,
        "reason": aside.reason if aside is not None else None,
    }


def _document(status: LaneStatus) -> dict[str, Any]:
    aside, order = status.aside, status.order
    document = _row(status)
    if aside is not None:
        document |= {
            "since": datetime.fromtimestamp(aside.at_ms / 1000, UTC),
            "set_aside_by": aside.elector,
            "details": aside.details or None,
            "remedy": status.remedy,
        }
    if order is not None:
        document["order"] = order.action
    return document
