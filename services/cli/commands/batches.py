"""`joblog batch ...`: show, list and cancel batches."""

from typing import Annotated

import typer
from joblog.services.cli.commands.jobs import print_page
from joblog.services.cli.context import LimitOption, Output, OutputOption, note
from joblog.services.cli.output import print_document
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.values import check_filled, settings_of
from joblog.services.client.client import Client
from joblog.streams.contract.states import State
from joblog.streams.errors import JoblogError

app = typer.Typer(no_args_is_help=True)

_STATES = f"{State.AWAITING}, {State.PROCESSING}, {State.SUCCEEDED}, {State.FAILED}, {State.DELETED}"
BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID", help="The batch's id.")]
States = Annotated[
    list[State] | None,
    typer.Option("--state", case_sensitive=False, metavar="STATE", help=f"{_STATES}; may be repeated."),
]
Cursor = Annotated[str | None, typer.Option(help="The cursor that the previous page printed.")]
_COLUMNS = ("id", "state", "created_at", "description", "total", "pending", "succeeded", "failed", "deleted")
_JOB_COLUMNS = ("id", "state", "changed_at", "queue", "task", "attempt", "reason")


@app.callback()
def batch() -> None:
    """Show and cancel batches."""


@app.command()
def show(ctx: typer.Context, batch_id: BatchId, output: OutputOption = Output.TABLE) -> None:
    """Show a batch: its state, how many of its jobs have ended, and how.

    Example: joblog batch show 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12 --output json
    """
    with monitor_of(settings_of(ctx)) as monitor:
        found = monitor.batch(batch_id)
        refused = monitor.rejected(job_id=batch_id, limit=1).items if found is None else ()
    if found is None:
        why = refused[0].reason if refused else "if it was created just now, it may not have reached Postgres yet"
        raise JoblogError(f"there is no batch {batch_id}; {why}")
    document = found.model_dump(mode="json" if output is Output.JSON else "python")
    if output is not Output.JSON:
        document = {name: value for name, value in document.items() if value is not None}
    print_document(document, output)


@app.command()
def jobs(
    ctx: typer.Context,
    batch_id: BatchId,
    *,
    state: States = None,
    limit: LimitOption = 50,
    cursor: Cursor = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the jobs of a batch in the order of their ids.

    Example: joblog batch jobs 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12 --state Failed
    """
    check_filled(cursor=cursor)
    with monitor_of(settings_of(ctx)) as monitor:
        page = monitor.batch_jobs(batch_id, state=state or None, limit=limit, cursor=cursor)
    print_page(page.items, page.next_cursor, _JOB_COLUMNS, output)


@app.command("list")
def list_batches(
    ctx: typer.Context,
    *,
    state: States = None,
    within: Annotated[str | None, typer.Option(metavar="BATCH_ID", help="Only batches within this one.")] = None,
    limit: LimitOption = 50,
    cursor: Cursor = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List batches, the last created first.

    Example: joblog batch list --state Processing
    """
    check_filled(cursor=cursor)
    with monitor_of(settings_of(ctx)) as monitor:
        page = monitor.batches(state=state or None, batch=within, limit=limit, cursor=cursor)
    print_page(page.items, page.next_cursor, _COLUMNS, output)


@app.command()
def cancel(
    ctx: typer.Context,
    batch_id: BatchId,
    *,
    running: Annotated[bool, typer.Option("--running", help="Delete its running jobs, too.")] = False,
    reason: Annotated[str | None, typer.Option(help="The reason, recorded in the histories of its jobs.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Cancel a batch: its jobs are deleted before they start.

    Example: joblog batch cancel 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12 --reason "wrong file"
    """
    with Client.from_settings(settings_of(ctx)) as client:
        client.cancel_batch(batch_id, running=running, reason=reason)
    if output is Output.JSON:
        print_document({"command": "batch.cancel", "batch_id": batch_id}, output)
    else:
        note(f"cancel {batch_id}: sent; `joblog batch show {batch_id}` shows the result")
