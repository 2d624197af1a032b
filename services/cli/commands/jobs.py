"""`joblog job ...`: show, list and change jobs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import typer
from joblog.projections.monitor.job_filter import Order
from joblog.projections.monitor.models import JobDetails, Rejected
from joblog.services.cli.commands.follow import follow
from joblog.services.cli.context import JobIdArgument, LimitOption, Output, OutputOption, note
from joblog.services.cli.output import print_block, print_document, print_rows, shown
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.values import (
    OfQueueOption,
    OfTaskOption,
    OfWorkerOption,
    StatesOption,
    check_filled,
    parse_due,
    queue_name,
    settings_of,
    task_name,
)
from joblog.services.client.client import Client
from joblog.services.settings.model import Settings
from joblog.streams.contract.fields import PRIORITY_MAX
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.errors import InvalidData, JoblogError, ProjectionError, SettingsError

app = typer.Typer(no_args_is_help=True)

_STATES = ", ".join(State)
JobIds = Annotated[list[str], typer.Argument(metavar="JOB_ID", help="Job ids.")]
Reason = Annotated[str | None, typer.Option(help="The reason, recorded in the job's history.")]
Expected = Annotated[
    State | None,
    typer.Option(
        "--expected-state",
        case_sensitive=False,
        metavar="STATE",
        help=f"Reject the command if the job is not in this state: {_STATES}.",
    ),
]
_COLUMNS = ("id", "state", "changed_at", "queue", "task", "attempt", "reason")


@app.callback()
def job() -> None:
    """Show and change jobs."""


@app.command()
def show(ctx: typer.Context, job_id: JobIdArgument, output: OutputOption = Output.TABLE) -> None:
    """Show a job and its history, newest first.

    Example: joblog job show 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12 --output json
    """
    with monitor_of(settings_of(ctx)) as monitor:
        found = monitor.job(job_id)
        refused = monitor.rejected(job_id=job_id, limit=1).items if found is None else ()
    if found is None:
        raise JoblogError(f"there is no job {job_id}; {_why_unknown(job_id, refused)}")
    print_job(found, output)


app.command()(follow)


def _why_unknown(job_id: str, refused: Sequence[Rejected]) -> str:
    """Rejected commands on this job, if there are any."""
    if not refused:
        return (
            "if it was created just now, it may not have reached Postgres yet; if it ended long ago, its row has "
            f"expired, and the log still has it: `joblog replay history {job_id}`"
        )
    last = refused[0]
    return f"{last.command or 'a command'} for it was rejected at {last.at:%Y-%m-%d %H:%M:%SZ}: {last.reason}"


def print_job(found: JobDetails, output: Output) -> None:
    """Print a job: everything as JSON, or the job and its history for people."""
    document = found.model_dump(mode="json" if output is Output.JSON else "python")
    if output is Output.JSON:
        print_document(document, output)
        return
    lists = {name: document.pop(name) for name in ("history", "continuations", "rejected")}
    lists["history"] = [
        {**entry, "data": _told(entry["data"])} for entry in lists["history"] if entry["type"] != "job.progressed"
    ]
    document["spec"] = {name: value for name, value in (found.spec or {}).items() if name not in {"args", "kwargs"}}
    if found.exception is not None:
        document["exception"] = f"{found.exception.type}: {found.exception.message}"
        if document["reason"] == document["exception"]:
            del document["reason"]
    print_document({name: value for name, value in document.items() if value not in (None, {}, ())}, output)
    if found.progress is not None:
        document["progress"] = f"{found.progress.share:.0%} {found.progress.text or ''}".strip()
    lines = document.pop("lines")
    if found.exception is not None and found.exception.details:
        print_block("traceback", found.exception.details)
    if lines:
        print_block("lines", "\n".join(line["text"] for line in lines))
    for name, columns in (
        ("history", ("version", "at", "state", "attempt", "lasted_s", "reason", "data")),
        ("continuations", ("id", "state", "continue_on", "task")),
        ("rejected", ("at", "command", "code", "reason")),
    ):
        if lists[name]:
            print(f"\n{name}")
            print_rows(lists[name], columns, output)


def _told(data: Mapping[str, Any]) -> str:
    """Describe an event in words; exceptions are in the reason, and only the last one is shown in full."""
    return ", ".join(f"{name} {shown(value, name)}" for name, value in data.items() if name != "exception")


@app.command("list")
def list_jobs(
    ctx: typer.Context,
    *,
    state: StatesOption = None,
    queue: OfQueueOption = None,
    task: OfTaskOption = None,
    worker: OfWorkerOption = None,
    search: Annotated[str | None, typer.Option(help="A job id, or a part of the last exception's text.")] = None,
    order: Annotated[
        Order,
        typer.Option(
            case_sensitive=False, help="By last change (newest, oldest), creation, or, if Scheduled, due time."
        ),
    ] = Order.NEWEST,
    limit: LimitOption = 50,
    cursor: Annotated[str | None, typer.Option(help="The cursor that the previous page printed.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List jobs, the last changed first.

    Example: joblog job list --state Failed --queue images --limit 20
    """
    check_filled(worker=worker, search=search, cursor=cursor)
    queue_name(queue)
    task_name(task)
    with monitor_of(settings_of(ctx)) as monitor:
        page = monitor.jobs(
            limit=limit,
            cursor=cursor,
            state=state or None,
            queue=queue,
            task=task,
            worker=worker,
            q=search,
            order=order,
        )
    print_page(page.items, page.next_cursor, _COLUMNS, output)


def print_page(items: tuple[Any, ...], next_cursor: str | None, columns: tuple[str, ...], output: Output) -> None:
    """Print a page; the cursor of the next page goes to stderr, because it is not a row."""
    mode = "json" if output is Output.JSON else "python"
    print_rows((item.model_dump(mode=mode) for item in items), columns, output)
    if next_cursor is not None:
        note(f"more: --cursor {next_cursor}")


@app.command()
def delete(
    ctx: typer.Context,
    job_ids: JobIds,
    *,
    reason: Reason = None,
    expected_state: Expected = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete jobs; a running one is cancelled.

    A job that failed long ago is looked up in Postgres.

    Example: joblog job delete 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12 --reason "no longer wanted"
    """
    settings = settings_of(ctx)
    with Client.from_settings(settings) as client:
        for job_id in job_ids:
            # Of the ended jobs only these can be deleted.
            snapshot = snapshot_of(settings, job_id, {State.FAILED})
            client.delete(job_id, snapshot=snapshot, reason=reason, expected_state=expected_state)
            _sent("delete", job_id, output)


@app.command()
def requeue(
    ctx: typer.Context,
    job_ids: JobIds,
    *,
    queue: Annotated[str | None, typer.Option(help="Move the jobs to another queue of the same lane.")] = None,
    reason: Reason = None,
    expected_state: Expected = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Put jobs into their queue again, from any state; retries are counted from 0 again.

    A job that ended long ago is restored from Postgres.

    Example: joblog job requeue 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12
    """
    queue_name(queue)
    settings = settings_of(ctx)
    with Client.from_settings(settings) as client:
        for job_id in job_ids:
            snapshot = snapshot_of(settings, job_id)
            client.requeue(job_id, queue=queue, snapshot=snapshot, reason=reason, expected_state=expected_state)
            _sent("requeue", job_id, output)


@app.command()
def reschedule(
    ctx: typer.Context,
    job_ids: JobIds,
    *,
    delay: Annotated[str | None, typer.Option(help="Delay from now: 90s, 15m, 1.5h, 2d.")] = None,
    at: Annotated[str | None, typer.Option(help="An ISO 8601 time; UTC if it has no zone.")] = None,
    reason: Reason = None,
    expected_state: Expected = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Schedule jobs for another time, from any state.

    Example: joblog job reschedule 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12 --delay 1h
    """
    settings = settings_of(ctx)
    run_at = parse_due(delay, at)
    if run_at is None:
        raise InvalidData("give --delay or --at: the instant to move the jobs to")
    with Client.from_settings(settings) as client:
        for job_id in job_ids:
            snapshot = snapshot_of(settings, job_id)
            client.reschedule(job_id, at=run_at, snapshot=snapshot, reason=reason, expected_state=expected_state)
            _sent("reschedule", job_id, output)


@app.command()
def move(
    ctx: typer.Context,
    job_ids: JobIds,
    *,
    to: Annotated[str, typer.Option(help="The queue to move the jobs to.")],
    reason: Reason = None,
    expected_state: Expected = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Move jobs to another queue of the same lane; their state stays. Those that run are rejected.

    Example: joblog job move 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12 --to slow
    """
    with Client.from_settings(settings_of(ctx)) as client:
        for job_id in job_ids:
            client.move(job_id, to, reason=reason, expected_state=expected_state)
            _sent("move", job_id, output)


@app.command("set-priority")
def set_priority(
    ctx: typer.Context,
    job_ids: JobIds,
    *,
    priority: Annotated[int, typer.Option(min=-PRIORITY_MAX, max=PRIORITY_MAX, help="Higher ones start first.")],
    reason: Reason = None,
    expected_state: Expected = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change the priority of jobs that have not ended; the order of their queue follows at once.

    Example: joblog job set-priority 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12 --priority 10
    """
    with Client.from_settings(settings_of(ctx)) as client:
        for job_id in job_ids:
            client.set_priority(job_id, priority, reason=reason, expected_state=expected_state)
            _sent("set_priority", job_id, output)


def snapshot_of(settings: Settings, job_id: str, states: Collection[State] = FINAL_STATES) -> dict[str, Any] | None:
    """A snapshot of an ended job from Postgres, since electors forget ended jobs; None for a live one."""
    try:
        with monitor_of(settings) as monitor:
            snapshot = monitor.snapshot(job_id)
    except (SettingsError, ProjectionError) as exc:
        note(f"warning: Postgres was not asked, so a job that ended long ago will be rejected as unknown: {exc}")
        return None
    if snapshot is None:
        note(
            f"warning: Postgres does not know what {job_id} was created with: if it ended long ago, its row "
            "has expired, and this command will be rejected as unknown_job; the log has it: "
            f"`joblog replay history {job_id}`"
        )
        return None
    return snapshot if snapshot["state"] in states else None


def _sent(what: str, job_id: str, output: Output) -> None:
    if output is Output.JSON:
        print_document({"command": f"job.{what}", "job_id": job_id}, output)
    else:
        note(f"{what} {job_id}: sent; `joblog job show {job_id}` shows the result")
