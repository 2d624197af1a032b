"""`joblog recurring`: the process itself, and the commands on recurring jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from joblog.services.cli.commands.recurring.runs import print_with_skipped, runs, with_runs, with_states
from joblog.services.cli.commands.recurring.tasks import TasksOption, found_in, note_unserved
from joblog.services.cli.commands.recurring.values import document, interval_of, row_of, seconds_of
from joblog.services.cli.commands.roles import HttpPort
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.extras import needs
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import Aside
from joblog.services.cli.values import (
    from_here,
    given,
    parse_delay,
    parse_due,
    parse_instant,
    parse_json,
    queue_name,
    settings_of,
)
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.services.roles.runner import run_role
from joblog.streams.contract.fields import ATTEMPTS_MAX, PRIORITY_MAX
from joblog.streams.contract.recurring import Misfire, Overlap
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.errors import InvalidData

app = typer.Typer(invoke_without_command=True)

Id = Annotated[str, typer.Argument(help="The recurring job's id.")]
Cron = Annotated[str | None, typer.Option(help="Cron with 5 fields, or 6 with seconds first, or a macro: @daily.")]
EveryOption = Annotated[str | None, typer.Option("--every", help="An interval instead: 90s, 15m, 1.5h, 2d.")]
Zone = Annotated[str | None, typer.Option(help="IANA time zone of the cron expression.", show_default="UTC")]
Args = Annotated[str | None, typer.Option(help="Arguments, a JSON array.", show_default="[]")]
Kwargs = Annotated[str | None, typer.Option(help="Keyword arguments, a JSON object.", show_default="{}")]
Queue = Annotated[str | None, typer.Option(help="The queue of its jobs.", show_default="default")]
MisfireOption = Annotated[
    Misfire | None,
    typer.Option(case_sensitive=False, help="What becomes of missed occurrences.", show_default="relaxed"),
]
OverlapOption = Annotated[
    Overlap | None,
    typer.Option(case_sensitive=False, help="What if the job before has not ended.", show_default="allow"),
]
CapOption = Annotated[
    int | None, typer.Option(min=1, help="The most jobs for missed occurrences, if strict.", show_default="100")
]
ToleranceOption = Annotated[
    str | None, typer.Option(help="How late a job may come, if ignorable: 30s, 5m.", show_default="30s")
]
UPCOMING: Final = 5


@app.callback()
def recurring(
    ctx: typer.Context,
    tasks: Annotated[
        str | None, typer.Option(help="Register what the tasks of these modules declare with @recurring.")
    ] = None,
    http_port: HttpPort = None,
) -> None:
    """Run the recurring process, which creates jobs when they are due; or, with a command, manage recurring jobs.

    Start several to share the work; if one dies, the others go on after seconds, and no occurrence is lost.

    Example: joblog recurring --tasks myapp.tasks --http-port 9105
    """
    if ctx.invoked_subcommand is not None:
        if tasks is not None or http_port is not None:
            raise InvalidData(
                f"--tasks and --http-port have no effect on `joblog recurring {ctx.invoked_subcommand}`"
            )
        return
    with needs("recurring", "faust"):
        from joblog.services.roles.recurring import recurring as wired  # noqa: PLC0415 - of an extra
    settings = settings_of(ctx, recurring=given(tasks=tasks), http=given(port=http_port))
    from_here()
    raise typer.Exit(run_role("recurring", wired(settings), settings))


@app.command("list")
def list_recurring(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the recurring jobs.

    Example: joblog recurring list --output json
    """
    now = datetime.now(UTC)
    with _client(ctx) as client:
        rows = with_states(settings_of(ctx), [row_of(row, now) for row in client.recurring.list()])
    columns = ("id", "schedule", "zone", "task", "next", "last", "last_job_id", "last_state", "paused", "error")
    print_rows(rows, columns, output)


@app.command()
def show(ctx: typer.Context, recurring_id: Id, output: OutputOption = Output.TABLE) -> None:
    """Show a recurring job, its next occurrences, and those that were left out lately.

    Example: joblog recurring show nightly
    """
    with _client(ctx) as client:
        found = client.recurring.get(recurring_id)
    shown = with_runs(settings_of(ctx), document(found, datetime.now(UTC), UPCOMING))
    print_with_skipped(shown, output)


app.command()(runs)


@app.command()
def add(
    ctx: typer.Context,
    recurring_id: Id,
    task: Annotated[str, typer.Argument(help="The task's name.")],
    *,
    cron: Cron = None,
    every: EveryOption = None,
    anchor: Annotated[str | None, typer.Option(help="An ISO 8601 time at which an interval begins.")] = None,
    zone: Zone = None,
    args: Args = None,
    kwargs: Kwargs = None,
    queue: Queue = None,
    priority: Annotated[int, typer.Option(min=-PRIORITY_MAX, max=PRIORITY_MAX, help="Higher runs first.")] = 0,
    attempts: Annotated[
        int | None, typer.Option(min=0, max=ATTEMPTS_MAX, help="Retries.", show_default="as its task says")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Time limit of a run: 90s, 15m.", show_default="as its task says")
    ] = None,
    misfire: MisfireOption = None,
    misfire_cap: CapOption = None,
    misfire_tolerance: ToleranceOption = None,
    overlap: OverlapOption = None,
    tasks: TasksOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Add a recurring job, or replace the one with this id; a pause stays.

    A note on stderr says if no running worker would take its jobs, as far as Postgres knows.

    Example: joblog recurring add nightly reports.send --cron '0 2 * * *' --zone Europe/Berlin --args '["all"]'
    """
    options = JobOptions(
        queue=queue_name(queue),
        priority=priority,
        retry=None if attempts is None else RetryPolicy.model_validate(given(attempts=attempts)),
        timeout=None if timeout is None else parse_delay(timeout),
    )
    schedule = _schedule(cron, every)
    if schedule is None:
        raise InvalidData("give --cron '0 2 * * *' or --every 15m")
    fields = given(args=_json(args, "--args", list), kwargs=_json(kwargs, "--kwargs", dict), zone=zone)
    fields |= given(misfire=misfire, overlap=overlap, anchor=None if anchor is None else parse_instant(anchor))
    fields |= given(misfire_cap=misfire_cap, misfire_tolerance=seconds_of(misfire_tolerance))
    found = found_in(ctx, tasks, task)
    aside = Aside(settings_of(ctx))
    with _client(ctx) as client:
        made = client.recurring.add_or_update(recurring_id, found, schedule, options=options, **fields)
        _tell(client, recurring_id, "added", output)
    note_unserved(made, aside)


@app.command()
def edit(
    ctx: typer.Context,
    recurring_id: Id,
    *,
    task: Annotated[str | None, typer.Option(help="The task's name.")] = None,
    cron: Cron = None,
    every: EveryOption = None,
    zone: Annotated[str | None, typer.Option(help="IANA time zone.")] = None,
    args: Annotated[str | None, typer.Option(help="Arguments, a JSON array.")] = None,
    kwargs: Annotated[str | None, typer.Option(help="Keyword arguments, a JSON object.")] = None,
    queue: Annotated[str | None, typer.Option(help="The queue of its jobs.")] = None,
    misfire: Annotated[Misfire | None, typer.Option(help="What becomes of missed occurrences.")] = None,
    misfire_cap: CapOption = None,
    misfire_tolerance: ToleranceOption = None,
    overlap: Annotated[Overlap | None, typer.Option(help="What if the job before has not ended.")] = None,
    tasks: TasksOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change some fields of a recurring job.

    A note on stderr says if no running worker would take its jobs, as far as Postgres knows.

    Example: joblog recurring edit nightly --cron '0 3 * * *'
    """
    if tasks is not None and task is None:
        raise InvalidData("--tasks has no effect without --task")
    changes: dict[str, Any] = given(
        task=None if task is None else found_in(ctx, tasks, task),
        schedule=_schedule(cron, every),
        zone=zone,
        args=_json(args, "--args", list),
        kwargs=_json(kwargs, "--kwargs", dict),
        queue=queue_name(queue),
        misfire=misfire,
        misfire_cap=misfire_cap,
        misfire_tolerance_s=seconds_of(misfire_tolerance),
        overlap=overlap,
    )
    if not changes:
        raise InvalidData("nothing to change: give --task, --cron, --every, --zone, --args, --kwargs, --queue, ...")
    aside = Aside(settings_of(ctx))
    with _client(ctx) as client:
        made = client.recurring.edit(recurring_id, **changes)
        _tell(client, recurring_id, "changed", output)
    note_unserved(made, aside)


@app.command()
def pause(
    ctx: typer.Context,
    recurring_id: Id,
    *,
    until: Annotated[str | None, typer.Option(help="An ISO 8601 time; UTC if it has no zone.")] = None,
    within: Annotated[str | None, typer.Option("--for", help="How long instead: 90s, 15m, 1.5h, 2d.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Pause a recurring job, for good or for a time; what would be due meanwhile is not made up for.

    Example: joblog recurring pause nightly --until 2027-01-31T06:00:00Z
    """
    if until is not None and within is not None:
        raise InvalidData("give --until or --for, not both")
    with _client(ctx) as client:
        client.recurring.pause(recurring_id, until=parse_due(within, until))
        _tell(client, recurring_id, "paused", output)


@app.command()
def resume(ctx: typer.Context, recurring_id: Id, output: OutputOption = Output.TABLE) -> None:
    """End a pause.

    Example: joblog recurring resume nightly
    """
    with _client(ctx) as client:
        client.recurring.resume(recurring_id)
        _tell(client, recurring_id, "resumed", output)


@app.command()
def trigger(ctx: typer.Context, recurring_id: Id) -> None:
    """Create a job of it now, and print the job's id; its schedule stays as it is.

    Example: joblog recurring trigger nightly
    """
    with _client(ctx) as client:
        print(client.recurring.trigger_now(recurring_id))


@app.command()
def skip(ctx: typer.Context, recurring_id: Id, output: OutputOption = Output.TABLE) -> None:
    """Leave out its next occurrence.

    Example: joblog recurring skip nightly
    """
    with _client(ctx) as client:
        skipped = client.recurring.skip_next(recurring_id)
        _tell(client, recurring_id, f"leaves out {skipped.isoformat()}", output)


@app.command()
def remove(ctx: typer.Context, recurring_id: Id) -> None:
    """Remove a recurring job; jobs that it created stay. Exit code 1 if there is none.

    Example: joblog recurring remove nightly
    """
    with _client(ctx) as client:
        is_removed = client.recurring.remove(recurring_id)
    note(f"{recurring_id}: " + ("removed" if is_removed else "there was none"))
    if not is_removed:
        raise typer.Exit(1)


@contextmanager
def _client(ctx: typer.Context) -> Iterator[Client]:
    with Client.from_settings(settings_of(ctx)) as client:
        yield client


def _tell(client: Client, recurring_id: str, what: str, output: Output) -> None:
    """Say what was done, and what comes next."""
    shown = document(client.recurring.get(recurring_id), datetime.now(UTC), UPCOMING)
    if output is Output.JSON:
        print_document(shown, output)
    else:
        note(f"{recurring_id}: {what}; next: {shown['next'] or 'never'}")


def _schedule(cron: str | None, every: str | None) -> str | timedelta | None:
    if cron is not None and every is not None:
        raise InvalidData("give --cron or --every, not both")
    return interval_of(every) if every is not None else cron


def _json(text: str | None, option: str, kind: type) -> Any:
    if text is None:
        return None
    value = parse_json(text, option)
    if not isinstance(value, kind):
        raise InvalidData(f"{option}: {text!r:.100} is not a JSON {'array' if kind is list else 'object'}")
    return value
