"""`joblog enqueue`."""

from contextlib import ExitStack
from datetime import timedelta
from typing import Annotated, Any, Final

import typer
from joblog.projections.monitor.monitor import Monitor
from joblog.services.cli.commands.jobs import print_job
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.limits import parse_limits
from joblog.services.cli.output import print_document
from joblog.services.cli.postgres import Aside, monitor_of, unserved
from joblog.services.cli.values import NotJson, given, parse_delay, parse_due, parse_json, queue_name, settings_of
from joblog.services.client.client import Client
from joblog.services.client.options import Call, JobOptions
from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.commands import Unique
from joblog.streams.contract.fields import ATTEMPTS_MAX, PRIORITY_MAX
from joblog.streams.contract.relations import UniquePolicy, UniqueUntil
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.errors import InvalidData, JoblogError
from pydantic import ValidationError

DEFAULT_QUEUE: Final = "default"


def enqueue(
    ctx: typer.Context,
    task: Annotated[str, typer.Argument(help="The task's name.")],
    args: Annotated[
        list[str] | None, typer.Argument(help="Arguments as JSON; what is not JSON is taken as text.")
    ] = None,
    *,
    kwargs: Annotated[str, typer.Option(help="Keyword arguments, a JSON object.")] = "{}",
    queue: Annotated[str | None, typer.Option(help="The queue.", show_default=DEFAULT_QUEUE)] = None,
    priority: Annotated[
        int, typer.Option(min=-PRIORITY_MAX, max=PRIORITY_MAX, help="Priority; higher runs first.")
    ] = 0,
    delay: Annotated[str | None, typer.Option(help="Run after a delay: 90s, 15m, 1.5h, 2d.")] = None,
    at: Annotated[str | None, typer.Option(help="Run at an ISO 8601 time; UTC if it has no zone.")] = None,
    parent: Annotated[str | None, typer.Option(help="Run when the job with this id has ended.")] = None,
    on: Annotated[
        ContinueOn | None,
        typer.Option(
            case_sensitive=False, help="How the parent has to end for the job to run.", show_default="succeeded"
        ),
    ] = None,
    attempts: Annotated[
        int | None,
        typer.Option(
            min=0, max=ATTEMPTS_MAX, help="Retries after the first run, 0 for none.", show_default="as its task says"
        ),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Time limit of a run: 90s, 15m.", show_default="as its task says")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Idempotency key: calls with the same key create one job.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="Job id chosen by the caller, to repeat a call safely.")] = None,
    unique_key: Annotated[
        str | None, typer.Option(help="Unique key: one job of the queue with this key lives at a time.")
    ] = None,
    unique_policy: Annotated[
        UniquePolicy | None,
        typer.Option(
            case_sensitive=False, help="What to do if another job has the unique key.", show_default="reject"
        ),
    ] = None,
    unique_until: Annotated[
        UniqueUntil | None,
        typer.Option(case_sensitive=False, help="How long the job has its unique key.", show_default="end"),
    ] = None,
    unique_period: Annotated[
        str | None, typer.Option(help="With --unique-until period: how long after the creation: 90s, 15m.")
    ] = None,
    unique_wait: Annotated[
        str | None, typer.Option(help="With --unique-policy debounce: how long after the last creation it runs.")
    ] = None,
    mutex: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Run alone among the jobs of this mutex; may be repeated.")
    ] = None,
    semaphore: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=N", help="Run with N jobs of this semaphore at most; may be repeated."),
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=N/TIME", help="Start with N jobs of this rate at most in any such time: mail=50/1s."
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Take turns with other tenants that wait for the same limits.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=JSON", help="A parameter of the job; may be repeated.")
    ] = None,
    wait: Annotated[
        str | None, typer.Option(help="Wait up to this long for the job to finish, and show it: 90s, 15m.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a job, and print its id once Kafka has stored it.

    With --wait the exit code is 1 unless the job succeeded. A note on stderr says if no running worker would take the
    job, as far as Postgres knows.

    Example: joblog enqueue images.shrink a.png --kwargs '{"width": 640}' --queue images

    Example: joblog enqueue reports.send 17 --at 2027-01-31T06:00:00Z
    """
    if on is not None and parent is None:
        raise InvalidData("--on has no effect without --parent JOB_ID")
    options = JobOptions(
        queue=queue_name(queue),
        priority=priority,
        retry=None if attempts is None else RetryPolicy.model_validate(given(attempts=attempts)),
        timeout=None if timeout is None else parse_delay(timeout),
        parameters=_parameters(parameter or []),
        idempotency_key=idempotency_key,
        job_id=job_id,
        run_at=parse_due(delay, at),
        parent=parent,
        on=on,
        limits=parse_limits(mutex or [], semaphore or [], rate or [], tenant),
        unique=_unique(unique_key, unique_policy, unique_until, unique_period, unique_wait),
    )
    named = parse_json(kwargs, "--kwargs")
    if not isinstance(named, dict):
        raise InvalidData(f"--kwargs needs a JSON object, such as '{{\"width\": 640}}', not {kwargs!r:.100}")
    settings = settings_of(ctx)
    with ExitStack() as stack:
        # Check first that waiting is possible: after an error the job would seem not to have been created.
        patience = parse_delay(wait) if wait is not None else None
        monitor = stack.enter_context(monitor_of(settings)) if patience is not None else None
        aside = Aside(settings)
        with Client.from_settings(settings) as client:
            created = client.create(task, Call([_argument(one) for one in args or []], named), options)
        if monitor is not None:
            note(created)
        elif output is Output.JSON:
            print_document({"id": created}, output)
        else:
            print(created, flush=True)
        running = aside.running()
        if running is not None and (waiting := unserved(queue or DEFAULT_QUEUE, task, running)):
            note(f"note: the job waits: {waiting}")
        if monitor is not None and patience is not None:
            _show_end(monitor, created, patience, output)


def _unique(
    key: str | None, policy: UniquePolicy | None, until: UniqueUntil | None, period: str | None, wait: str | None
) -> Unique | None:
    if key is None:
        for option, value in (("policy", policy), ("until", until), ("period", period), ("wait", wait)):
            if value is not None:
                raise InvalidData(f"--unique-{option} has no effect without --unique-key KEY")
        return None
    try:
        return Unique(
            key=key,
            policy=policy or UniquePolicy.REJECT,
            until=until or UniqueUntil.END,
            period_s=None if period is None else parse_delay(period).total_seconds(),
            wait_s=None if wait is None else parse_delay(wait).total_seconds(),
        )
    except ValidationError as exc:
        raise InvalidData(f"unique key: {explained(exc)}") from exc


def _show_end(monitor: Monitor, job_id: str, patience: timedelta, output: Output) -> None:
    found = monitor.wait_for(job_id, FINAL_STATES, patience.total_seconds())
    if found is None:
        now = _now(monitor, job_id)
        raise JoblogError(f"job {job_id} did not finish within {patience.total_seconds():g} s: {now}")
    print_job(found, output)
    if found.state is not State.SUCCEEDED:
        raise typer.Exit(1)


def _now(monitor: Monitor, job_id: str) -> str:
    """Why a job has not ended yet."""
    found = monitor.job(job_id)
    if found is None:
        refused = monitor.rejected(job_id=job_id, limit=1).items
        if refused:
            return f"it was rejected: {refused[0].reason}"
        return "it has not reached Postgres; `joblog doctor` tells whether an elector and a projector run"
    match found.state:
        case State.ENQUEUED:
            running = [one for one in monitor.workers() if one.state == "running"]
            more = unserved(found.queue, found.task, running) or "the workers of its queue are busy"
        case State.SCHEDULED if found.due is not None:
            more = f"due at {found.due:%Y-%m-%d %H:%M:%SZ}"
        case State.AWAITING:
            more = f"until job {found.parent} has ended, which is {found.parent_state or 'unknown'}"
        case _:
            more = f"attempt {found.attempt}" + (f" on {found.worker}" if found.worker else "")
    return f"it is {found.state}, {more}"


def _argument(text: str) -> Any:
    """Parse JSON; anything else is taken as text, because a shell strips quotes."""
    try:
        return parse_json(text, "argument")
    except NotJson:
        return text


def _parameters(texts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidData(f"--parameter needs NAME=JSON, such as tenant=7, not {text!r:.100}")
        if name in found:
            raise InvalidData(f"--parameter {name} is given twice: give each name once")
        found[name] = _argument(value)
    return found
