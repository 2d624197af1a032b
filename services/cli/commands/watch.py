"""Commands that show the read model: workers, counts, rejected commands, parked events."""

from datetime import timedelta
from typing import Annotated

import typer
from joblog.services.cli.commands.jobs import print_page
from joblog.services.cli.context import LimitOption, Output, OutputOption
from joblog.services.cli.output import print_document
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.values import check_filled, parse_delay, settings_of
from joblog.streams.contract.fields import SECONDS_MAX

rejected = typer.Typer(no_args_is_help=True)
parked = typer.Typer(no_args_is_help=True)

Cursor = Annotated[str | None, typer.Option(help="The cursor that the previous page printed.")]


def workers(
    ctx: typer.Context,
    gone_within: Annotated[
        str, typer.Option(help="Also show workers that stopped or were lost this recently.")
    ] = "1h",
    output: OutputOption = Output.TABLE,
) -> None:
    """List the workers.

    Example: joblog workers --gone-within 1d
    """
    within = min(parse_delay(gone_within), _GONE_WITHIN_MAX)
    with monitor_of(settings_of(ctx)) as monitor:
        found = monitor.workers(within)
    columns = ("name", "state", "processing", "slots", "queues", "tasks", "heartbeat")
    print_page(found, None, columns, output)


def stats(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Count the jobs in each state.

    Example: joblog stats --output json
    """
    with monitor_of(settings_of(ctx)) as monitor:
        found = monitor.statistics()
    document = found.model_dump(mode="json")
    if output is Output.TABLE:
        document = {
            **document.pop("counts"),
            **{f"{name}_in_total": document.pop(name) for name in _TOTALS},
            **document,
        }
    print_document(document, output)


#: Longer than any worker is remembered; a larger timedelta would leave the calendar.
_GONE_WITHIN_MAX = timedelta(seconds=SECONDS_MAX)
_TOTALS = ("succeeded", "failed", "deleted")


@rejected.callback()
def about_rejected() -> None:
    """Show commands that were rejected."""


@rejected.command("list")
def list_rejected(
    ctx: typer.Context, limit: LimitOption = 50, cursor: Cursor = None, output: OutputOption = Output.TABLE
) -> None:
    """List rejected commands, newest first, with the reasons.

    Example: joblog rejected list --limit 10
    """
    check_filled(cursor=cursor)
    with monitor_of(settings_of(ctx)) as monitor:
        page = monitor.rejected(limit=limit, cursor=cursor)
    print_page(page.items, page.next_cursor, ("at", "command", "code", "job_id", "reason", "position"), output)


@parked.callback()
def about_parked() -> None:
    """Show events that the projector could not apply."""


@parked.command("list")
def list_parked(
    ctx: typer.Context, limit: LimitOption = 50, cursor: Cursor = None, output: OutputOption = Output.TABLE
) -> None:
    """List events that the projector could not apply, newest first, with the reasons.

    Example: joblog parked list --output json
    """
    check_filled(cursor=cursor)
    with monitor_of(settings_of(ctx)) as monitor:
        page = monitor.parked(limit=limit, cursor=cursor)
    print_page(page.items, page.next_cursor, ("at", "lane", "log_offset", "code", "reason"), output)
