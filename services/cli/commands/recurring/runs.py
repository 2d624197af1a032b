"""What `joblog recurring` shows of the jobs that definitions made: `runs`, and the states of last jobs."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import typer
from joblog.projections import database
from joblog.projections.monitor.monitor import Monitor
from joblog.services.cli.commands.jobs import print_page
from joblog.services.cli.context import LimitOption, Output, OutputOption, note
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.values import check_filled, parse_instant, settings_of
from joblog.services.settings.model import Settings
from joblog.streams.errors import ProjectionError, SettingsError

T = TypeVar("T")

_COLUMNS = ("occurrence", "cause", "job_id", "state", "started_at", "duration_ms", "attempt", "error")


def runs(
    ctx: typer.Context,
    recurring_id: Annotated[str, typer.Argument(help="The recurring job's id; it may have been removed.")],
    *,
    before: Annotated[str | None, typer.Option(help="Only occurrences before this ISO 8601 time.")] = None,
    limit: LimitOption = 50,
    cursor: Annotated[str | None, typer.Option(help="The cursor that the previous page printed.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the jobs that a recurring job made, the latest occurrences first, and how many are in each state.

    The cause is schedule (its time came), misfire (caught up, or for several that were missed), queue (it waited for
    the job before) or trigger (by hand). Occurrences that were left out have no job: `joblog recurring show` tells.

    Example: joblog recurring runs nightly --limit 10
    """
    check_filled(before=before, cursor=cursor)
    instant = None if before is None else parse_instant(before)
    with monitor_of(settings_of(ctx)) as monitor:
        page = monitor.recurring_runs(recurring_id, limit=limit, before=instant, cursor=cursor)
        counts = monitor.recurring_counts(recurring_id)
    print_page(page.items, page.next_cursor, _COLUMNS, output)
    if counts.counts and output is Output.TABLE:
        which = "all jobs" if counts.is_all else f"the last {sum(counts.counts.values()):,} jobs"
        note(f"{which}: " + ", ".join(f"{n} {state}" for state, n in counts.counts.items()))


def with_states(settings: Settings, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a list with the states of their last jobs, as far as Postgres tells."""
    ids = [row["last_job_id"] for row in rows if row["last_job_id"] is not None]
    states: Mapping[str, str] = _asked(settings, lambda monitor: monitor.states(ids), {}) if ids else {}
    return [{**row, "last_state": states.get(row["last_job_id"] or "")} for row in rows]


def with_runs(settings: Settings, document: dict[str, Any]) -> dict[str, Any]:
    """A document with the state of the last job, and how many of the latest ones are in each state."""

    def ask(monitor: Monitor) -> dict[str, Any]:
        last = document["last_job_id"]
        state = monitor.states([last]).get(last) if last is not None else None
        return {"last_state": state, "runs": monitor.recurring_counts(document["id"]).counts}

    return {**document, **_asked(settings, ask, {"last_state": None, "runs": None})}


def print_with_skipped(document: dict[str, Any], output: Output) -> None:
    """Print a document; for people, the occurrences that were left out are a table below it, the latest first."""
    if output is Output.JSON:
        print_document(document, output)
        return
    skipped = document.pop("skipped", [])
    print_document(document, output)
    if skipped:
        print("\nskipped")
        print_rows(reversed(skipped), ("occurrence", "reason", "at"), output)


def _asked(settings: Settings, ask: Callable[[Monitor], T], otherwise: T) -> T:
    """The answer of Postgres, if one is set; a note if it does not answer: definitions are in the log."""
    if settings.postgres.dsn is None:
        return otherwise
    try:
        database.check_answers(settings.dsn(), settings.postgres.schema_name)
        with monitor_of(settings) as monitor:
            return ask(monitor)
    except (SettingsError, ProjectionError) as exc:
        note(f"note: the states of jobs are not known, as Postgres was not read: {exc}")
        return otherwise
