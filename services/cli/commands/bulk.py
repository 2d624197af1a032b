"""`joblog bulk ...`: change many jobs in the background, and watch that."""

import sys
import time
from datetime import datetime
from typing import Annotated, Final

import typer
from joblog.projections.monitor.bulk import filter_document
from joblog.projections.monitor.job_filter import JobFilter
from joblog.projections.monitor.models import BulkOperation
from joblog.projections.monitor.monitor import Monitor
from joblog.services.cli.context import LimitOption, Output, OutputOption, note
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.progress import STOPPED, shown
from joblog.services.cli.values import (
    ByOption,
    OfQueueOption,
    OfTaskOption,
    OfWorkerOption,
    ReasonOption,
    StatesOption,
    check_filled,
    parse_instant,
    queue_name,
    settings_of,
    task_name,
    who,
)
from joblog.services.client.bulk import RATE
from joblog.services.client.client import Client
from joblog.streams.contract.controls import BulkAction, bulk_problem
from joblog.streams.contract.fields import PRIORITY_MAX
from joblog.streams.contract.states import State
from joblog.streams.errors import InvalidData, JoblogError
from joblog.streams.progress import Stopped

app = typer.Typer(no_args_is_help=True)

Operation = Annotated[str, typer.Argument(metavar="OPERATION", help="The operation's id, as it was printed.")]
Follow = Annotated[bool, typer.Option("--follow", help="Wait for the end, and show how far it is.")]
#: How often the tables are looked at by whoever follows, seconds; and how long the numbers must stay as they are.
LOOK_S: Final = 0.3
SETTLED_S: Final = 1.0
_ACTIONS: Final = {
    BulkAction.REQUEUE: "Put jobs into their queue again, or into another one of the same lanes (--to).",
    BulkAction.DELETE: "Delete jobs; those that run are cancelled.",
    BulkAction.MOVE: "Move jobs to another queue of the same lanes (--to); those that run are left alone.",
    BulkAction.SET_PRIORITY: "Change the priority of jobs (--priority).",
}


@app.callback()
def about() -> None:
    """Change many jobs in the background.

    A filter chooses the jobs, as in `joblog job list`. A projector changes them at a given rate; a job that has moved
    since it was counted is left alone.
    """


def begin(
    ctx: typer.Context,
    *,
    state: StatesOption = None,
    queue: OfQueueOption = None,
    task: OfTaskOption = None,
    worker: OfWorkerOption = None,
    search: Annotated[str | None, typer.Option(help="A part of the last exception's type and text.")] = None,
    retrying: Annotated[bool, typer.Option("--retrying", help="Only jobs that wait for a retry.")] = False,
    created_after: Annotated[str | None, typer.Option(help="Created at this time or later (ISO 8601).")] = None,
    created_before: Annotated[str | None, typer.Option(help="Created before this time.")] = None,
    changed_after: Annotated[str | None, typer.Option(help="In its state since this time or later.")] = None,
    changed_before: Annotated[str | None, typer.Option(help="In its state since before this time.")] = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="All jobs there are, instead of a filter.")] = False,
    to: Annotated[str | None, typer.Option(help="The queue to move the jobs to.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=-PRIORITY_MAX, max=PRIORITY_MAX, help="Their new priority.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.01, max=100_000, help="Jobs a second.")] = RATE,
    reason: ReasonOption = None,
    by: ByOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    follow: Follow = False,
    output: OutputOption = Output.TABLE,
) -> None:
    action = BulkAction((ctx.info_name or "").replace("-", "_"))
    if problem := bulk_problem(action, to, priority):
        raise InvalidData(problem.replace(": queue", ": --to").replace(": priority", ": --priority"))
    check_filled(worker=worker, search=search)
    queue_name(to)
    wanted = JobFilter(
        state=state or None,
        queue=queue_name(queue),
        task=task_name(task),
        worker=worker,
        q=search,
        retrying=retrying,
        created_after=_instant(created_after),
        created_before=_instant(created_before),
        changed_after=_instant(changed_after),
        changed_before=_instant(changed_before),
    )
    if bool(filter_document(wanted)) == all_jobs:
        raise InvalidData("give a filter such as --state Failed --task images.shrink, or else --all, and not both")
    settings = settings_of(ctx)
    with monitor_of(settings) as monitor:
        found = monitor.bulk.matched(wanted, settings.lanes)
        note(f"{found.jobs} jobs match")
        if not found.jobs:
            if output is Output.JSON:
                print_document({"operation": None, "matched": 0}, output)
            return
        _confirm(action, found.jobs, yes=yes)
        with Client.from_settings(settings) as client:
            operation = client.bulk.start(
                action,
                found,
                queue=to,
                priority=priority,
                rate=rate,
                by=who(by),
                reason=reason,
            )
        if output is Output.TABLE:
            print(operation)
        elif not follow:
            print_document({"operation": operation, "matched": found.jobs}, output)
        if follow:
            raise typer.Exit(_followed(monitor, operation, output))
    note(f"`joblog bulk follow {operation}` shows how far it is, `joblog bulk cancel {operation}` ends it")


for _action, _help in _ACTIONS.items():
    _example = {BulkAction.MOVE: " --to slow", BulkAction.SET_PRIORITY: " --priority 10"}.get(_action, "")
    _state = State.ENQUEUED if _example else State.FAILED
    _name = _action.value.replace("_", "-")
    app.command(
        _name, help=f"{_help}\n\nExample: joblog bulk {_name} --state {_state} --task images.shrink{_example}"
    )(begin)


@app.command("list")
def list_operations(ctx: typer.Context, limit: LimitOption = 50, output: OutputOption = Output.TABLE) -> None:
    """List the operations, the last started first.

    Example: joblog bulk list --output json
    """
    with monitor_of(settings_of(ctx)) as monitor:
        found = monitor.bulk.operations(limit=limit)
    columns = ("id", "state", "action", "matched", "done", "refused", "left", "started_at", "started_by", "reason")
    print_rows(map(_row, found), columns, output)


@app.command()
def show(ctx: typer.Context, operation: Operation, output: OutputOption = Output.TABLE) -> None:
    """Show an operation: its filter, who began it and why, and how far it is.

    Example: joblog bulk show 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12
    """
    with monitor_of(settings_of(ctx)) as monitor:
        print_document(_row(_known(monitor, operation)), output)


@app.command()
def follow(ctx: typer.Context, operation: Operation, output: OutputOption = Output.TABLE) -> None:
    """Wait for the end of an operation. Exit codes: 0 done, 1 cancelled or failed, 130 stopped by Ctrl-C.

    Example: joblog bulk follow 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12
    """
    with monitor_of(settings_of(ctx)) as monitor:
        _known(monitor, operation)
        raise typer.Exit(_followed(monitor, operation, output))


@app.command()
def cancel(ctx: typer.Context, operation: Operation, *, reason: ReasonOption = None, by: ByOption = None) -> None:
    """End an operation; the jobs that it has changed stay so.

    Example: joblog bulk cancel 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12 --reason "the wrong task"
    """
    with Client.from_settings(settings_of(ctx)) as client:
        client.bulk.cancel(operation, by=who(by), reason=reason)
    note(f"{operation} will be cancelled")


def _instant(text: str | None) -> datetime | None:
    return None if text is None else parse_instant(text)


def _known(monitor: Monitor, operation: str) -> BulkOperation:
    found = monitor.bulk.operation(operation)
    if found is None:
        raise JoblogError(f"there is no bulk operation {operation}: `joblog bulk list` has all")
    return found


def _row(one: BulkOperation) -> dict[str, object]:
    document = one.model_dump(mode="json", exclude={"fence"})
    return {**document, "done": one.done, "left": one.left}


def _confirm(action: BulkAction, jobs: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidData("nobody is there to ask: look at the count, and give --yes")
    typer.confirm(f"{action.replace('_', ' ')}: {jobs} jobs?", abort=True, err=True)


def _followed(monitor: Monitor, operation: str, output: Output) -> int:
    """Show how far an operation is until it has ended; returns the exit code."""
    last: tuple[str, int, int] | None = None
    since = time.monotonic()
    try:
        with shown(output) as told:
            while True:
                found = monitor.bulk.operation(operation)
                if found is not None:
                    told(f"bulk {found.action.value}", found.sent, found.matched)
                    if (now := (found.state, found.sent, found.refused)) != last:
                        last, since = now, time.monotonic()
                    if found.state != "running" and time.monotonic() - since > SETTLED_S:
                        break
                time.sleep(LOOK_S)
    except Stopped:
        note(f"the operation goes on: `joblog bulk follow {operation}`, or `joblog bulk cancel {operation}`")
        return STOPPED
    print_document(_row(found), output)
    return 0 if found.state == "done" else 1
