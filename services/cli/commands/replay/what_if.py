"""`joblog replay what-if`: past jobs through another retry policy or other filters. Reads the log, writes nothing."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from joblog.services.cli.commands.replay.ranges import ReadNothingOption, print_ranges
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.files import DirectoryOption, files_in, resuming
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.progress import STOPPED, shown
from joblog.services.cli.values import (
    from_here,
    parse_instant,
    parse_json,
    queue_name,
    settings_of,
    task_name,
)
from joblog.services.replay.archives import Part
from joblog.services.replay.what_if import Change, asking
from joblog.services.settings.model import Settings
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.errors import InvalidData
from joblog.streams.lane.filters import ElectFilter, FilterChain
from joblog.streams.progress import Stopped
from joblog.streams.replay.outcomes import UNKNOWN
from joblog.streams.replay.what_if import Beyond

#: Rows of the load's table; with --output json there are all.
LOAD_ROWS_MAX = 30
BATCH_COLUMNS = ("recorded", "simulated", "batches", "succeeded_added", "failed_added", "deleted_added", "samples")


def what_if(
    ctx: typer.Context,
    *,
    retry: Annotated[
        str | None, typer.Option(help="The policy, as JSON with the fields of RetryPolicy: '{\"attempts\": 3}'.")
    ] = None,
    added: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="MODULE:CLASS", help="An elect-state filter to add; may be repeated."),
    ] = None,
    removed: Annotated[
        list[str] | None,
        typer.Option("--without-filter", metavar="NAME", help="A filter to leave out; may be repeated."),
    ] = None,
    beyond: Annotated[
        Beyond, typer.Option(case_sensitive=False, help="How runs are assumed to end that were never made.")
    ] = Beyond.AS_RECORDED,
    task: Annotated[str | None, typer.Option(help="Only jobs of this task, and their continuations.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue, and their continuations.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Only jobs created at this time or later.")] = None,
    to: Annotated[str | None, typer.Option(help="Only jobs created before this time.")] = None,
    directory: DirectoryOption = None,
    dry_run: ReadNothingOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send past jobs through another retry policy, or other filters, and see which would have ended otherwise.

    Nothing runs and nothing is written to Kafka. The recorded outcomes of each job's runs are decided anew, by the
    real rules; runs that were never made are assumed to end as --beyond says, and are counted separately. Commands
    are taken as they were. Continuations follow their parents, and batches their jobs: a job that never ran and would
    have is reported as unknown, unless --beyond says how it ends. Ctrl-C prints what was found so far; run the same
    command again with its --directory to go on.

    Example: joblog replay what-if --retry '{"attempts": 3}' --task images.shrink --from 2027-01-31T14:00:00Z
    """
    if retry is None and not added and not removed:
        raise InvalidData("nothing would be otherwise: give --retry, --filter or --without-filter")
    change = Change(
        retry=None if retry is None else policy_of(retry),
        added=[_loaded(place) for place in added or ()],
        removed=removed or (),
        beyond=beyond,
        task=task_name(task),
        queue=queue_name(queue),
        since=None if from_ is None else parse_instant(from_),
        until=None if to is None else parse_instant(to),
    )
    settings = settings_of(ctx)
    if dry_run:
        print_ranges(settings, Part(None if change.since is None else change.since.isoformat()), output)
        return
    with files_in(directory) as place:
        report = _asked(settings, change, place, output)
    print_report(report, output)


def _asked(settings: Settings, change: Change, place: Path, output: Output) -> dict[str, Any]:
    """The report; one that was stopped is printed here."""
    with shown(output) as progress, asking(settings, change, place, progress) as asked:
        try:
            asked.run()
        except Stopped as stopped:
            progress.close()
            print_report({"whole": False, "beyond": change.beyond.value, **asked.report()}, output)
            note(f"{stopped}; this is what was found until then; {resuming(place)}")
            raise typer.Exit(STOPPED) from stopped
        if unreadable := asked.unreadable:
            note(f"warning: {unreadable} records of {settings.names.events} could not be read, and were left out")
    asked.discard()
    return {"whole": True, "beyond": change.beyond.value, **asked.report()}


def policy_of(text: str) -> RetryPolicy:
    """The policy that a text describes; InvalidData or SettingsError say what is wrong with it."""
    fields = parse_json(text, "--retry")
    if not isinstance(fields, dict):
        raise InvalidData("--retry: give a JSON object, such as '{\"attempts\": 3}'")
    return RetryPolicy(**fields)


def _loaded(place: str) -> ElectFilter:
    from_here()
    module, _, name = place.partition(":")
    try:
        made: ElectFilter = getattr(import_module(module), name)()
        FilterChain([made])
    except Exception as error:
        raise InvalidData(
            f"--filter {place} cannot be used ({type(error).__name__}: {error}): give MODULE:CLASS of a class "
            "without arguments, with name, order, states and elect"
        ) from error
    return made


def print_report(report: dict[str, Any], output: Output) -> None:
    """The report as one JSON document, or as tables."""
    if output is Output.JSON:
        print_document(report, output)
        return
    lists = {name: report.pop(name) for name in ("ends", "batch_ends", "load")}
    print_document({name: value for name, value in report.items() if value not in ({}, 0)}, output)
    print("\nends")
    print_rows(lists["ends"], ("task", "recorded", "simulated", "assumed", "jobs", "samples"), output)
    if lists["batch_ends"]:
        print("\nends of batches, and how many more members end how")
        print_rows(lists["batch_ends"], BATCH_COLUMNS, output)
    print("\nruns a minute")
    busiest = sorted(lists["load"], key=lambda row: -max(row["recorded"], row["simulated"]))[:LOAD_ROWS_MAX]
    print_rows(sorted(busiest, key=lambda row: row["from"]), ("from", "recorded", "simulated", "added"), output)
    if len(lists["load"]) > LOAD_ROWS_MAX:
        note(f"the busiest {LOAD_ROWS_MAX} of {len(lists['load'])} intervals; --output json has all")
    if any(row["simulated"] == UNKNOWN for row in lists["ends"]):
        note("unknown: jobs that would have run, and never did; --beyond fail or succeed assumes an end")
