"""`joblog replay what-if`: past jobs through another retry policy or other filters. Reads the log, writes nothing."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from typing import Annotated, Any

import typer
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.progress import Pace
from joblog.services.cli.values import (
    from_here,
    parse_instant,
    parse_json,
    queue_name,
    settings_of,
    task_name,
)
from joblog.services.settings.model import Settings
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.retry import Retry, RetryPolicy
from joblog.streams.contract.timestamps import time_ms
from joblog.streams.errors import InvalidData
from joblog.streams.lane.filters import ElectFilter, FilterChain, RetryFilter, installed_filters
from joblog.streams.lane.rules import LaneRules
from joblog.streams.replay.history import Histories, History
from joblog.streams.replay.log import EventReader
from joblog.streams.replay.outcomes import Outcomes
from joblog.streams.replay.what_if import Beyond, WhatIf
from msgspec import convert

#: Rows of the load's table; with --output json there are all.
LOAD_ROWS_MAX = 30


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
    task: Annotated[str | None, typer.Option(help="Only jobs of this task.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Only jobs created at this time or later.")] = None,
    to: Annotated[str | None, typer.Option(help="Only jobs created before this time.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send past jobs through another retry policy, or other filters, and see which would have ended otherwise.

    Nothing runs and nothing is written. The recorded outcomes of each job's runs are decided anew, by the real rules;
    runs that were never made are assumed to end as --beyond says, and are counted separately. Commands, and the ends
    of other jobs, are taken as they were. Ctrl-C prints what was found so far.

    Example: joblog replay what-if --retry '{"attempts": 3}' --task images.shrink --from 2027-01-31T14:00:00Z
    """
    if retry is None and not added and not removed:
        raise InvalidData("nothing would be otherwise: give --retry, --filter or --without-filter")
    queue_name(queue)
    task_name(task)
    settings = settings_of(ctx)
    errors: Counter[str] = Counter()
    chain = chain_of(settings, added or (), removed or (), errors)
    wanted = WhatIf(chain, None if retry is None else policy_of(retry), beyond)
    outcomes = Outcomes()
    is_whole = True
    try:
        for history in histories(settings, from_, to, whole=bool(added) or bool(installed_filters())):
            if task in {None, history.job.task} and queue in {None, history.create.queue}:
                outcomes.add(history, wanted.of(history))
    except KeyboardInterrupt:
        is_whole = False
        note("stopped: this is what was found in the part of the log that was read")
    report = {"whole": is_whole, "beyond": beyond.value, **outcomes.report(), "filter_errors": dict(errors)}
    print_report(report, output)
    if not is_whole:
        raise typer.Exit(130)


def histories(settings: Settings, from_: str | None, to: str | None, *, whole: bool) -> Iterator[History]:
    """The jobs that were created between these times, lane by lane."""
    from_ms, to_ms = (None if text is None else time_ms(parse_instant(text)) for text in (from_, to))
    config, names, lanes = settings.kafka.config(), settings.names, settings.lanes
    with closing(EventReader(config, names.events, lanes, client_id=f"{names.prefix}what-if")) as reader:
        bounds = [reader.bounds(lane, from_ms) for lane in range(lanes)]
        with Pace("events", sum(end - start for start, end in bounds)) as pace:
            for lane, (start, end) in enumerate(bounds):
                found = Histories(from_ms, to_ms, whole=whole)
                for stored in reader.events(lane, start, end, pace.advance):
                    yield from found.take(stored)
                yield from found.rest()
    if reader.unreadable:
        note(f"warning: {reader.unreadable} records of {names.events} could not be read, and were left out")


def policy_of(text: str) -> Retry:
    """The policy that a text describes; InvalidData or SettingsError say what is wrong with it."""
    fields = parse_json(text, "--retry")
    if not isinstance(fields, dict):
        raise InvalidData("--retry: give a JSON object, such as '{\"attempts\": 3}'")
    return convert(RetryPolicy(**fields).model_dump(mode="json"), Retry)


def chain_of(
    settings: Settings, added: list[str] | tuple[()], removed: list[str] | tuple[()], errors: Counter[str]
) -> FilterChain:
    """The filters that an elector would have, with some more and some less; `errors` counts what they raise."""
    filters: list[ElectFilter] = [RetryFilter(), *installed_filters()]
    names = {one.name for one in filters}
    for name in removed:
        if name not in names:
            raise InvalidData(f"--without-filter: there is no filter {name}; there are {', '.join(sorted(names))}")
    filters = [one for one in filters if one.name not in removed] + [_loaded(place) for place in added]
    rules = LaneRules(shards=settings.queue_shards, shards_before=settings.queue_shards_before)
    return FilterChain(
        filters,
        on_error=lambda name: errors.update([name]),
        has_queue=lambda job_id, queue: rules.has_queue(queue, lane_of_job(job_id), settings.lanes),
    )


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
    lists = {name: report.pop(name) for name in ("ends", "load")}
    print_document({name: value for name, value in report.items() if value not in ({}, 0)}, output)
    print("\nends")
    print_rows(lists["ends"], ("task", "recorded", "simulated", "assumed", "jobs", "samples"), output)
    print("\nruns a minute")
    busiest = sorted(lists["load"], key=lambda row: -max(row["recorded"], row["simulated"]))[:LOAD_ROWS_MAX]
    print_rows(sorted(busiest, key=lambda row: row["from"]), ("from", "recorded", "simulated", "added"), output)
    if len(lists["load"]) > LOAD_ROWS_MAX:
        note(f"the busiest {LOAD_ROWS_MAX} of {len(lists['load'])} intervals; --output json has all")
