"""`joblog replay verify`: whether the log, Postgres and the electors' state say the same."""

from pathlib import Path
from typing import Annotated

import typer
from joblog.projections.replay.verification.lane_hashes import LaneHashes
from joblog.projections.replay.verification.report import Report
from joblog.projections.replay.verification.verification import Verification
from joblog.services.cli.commands.replay.ranges import LaneOption, ReadNothingOption, print_ranges
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.files import DirectoryOption, files_in, resuming, stoppable
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import hinted
from joblog.services.cli.progress import shown
from joblog.services.cli.values import settings_of
from joblog.services.replay.archives import Part
from joblog.services.replay.past import chosen_lanes
from joblog.services.settings.model import Settings


def verify(
    ctx: typer.Context,
    lane: LaneOption = None,
    postgres: Annotated[bool, typer.Option(help="Compare the log with Postgres.")] = True,
    state: Annotated[bool, typer.Option(help="Compare the log with the topics `state` and `deadletters`.")] = True,
    directory: DirectoryOption = None,
    dry_run: ReadNothingOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Compare the log with Postgres and with what electors keep, and look for what is wrong in the log itself.

    Works while the system runs: the log is folded exactly up to where the tables are. Prints the hashes of each lane:
    where those of log and tables are the same, so are its jobs; else they are compared one by one, and those that
    differ are named. Exits with 1 if anything was found.

    Example: joblog replay verify --output json
    """
    settings = settings_of(ctx)
    lanes = chosen_lanes(settings, lane)
    if dry_run:
        print_ranges(settings, Part(lanes=lanes), output)
        return
    with files_in(directory) as place:
        report = _verified(settings, place, lanes, postgres, state, output)
    _print(report, output)
    if not report.holds:
        raise typer.Exit(1)


def _verified(
    settings: Settings, place: Path, lanes: list[int], postgres: bool, state: bool, output: Output
) -> Report:
    with hinted(settings), shown(output) as progress, stoppable(resuming(place)):
        verification = Verification(
            settings.kafka.config(),
            settings.names,
            settings.lanes,
            place,
            dsn=settings.dsn() if postgres else None,
            schema=settings.postgres.schema_name,
            only=lanes,
            with_state=state,
            told=progress,
        )
        return verification.run()


def _print(report: Report, output: Output) -> None:
    if output is Output.JSON:
        print_document({"holds": report.holds, **report._asdict()}, output)
        return
    if report.lanes:
        print_rows(map(_lane_row, report.lanes), ("lane", "jobs", "rows", "history", "counters"), output)
    rows = ({name: getattr(one, name) for name in ("kind", "lane", "position", "what")} for one in report.findings)
    if report.findings:
        print()
        print_rows(rows, ("kind", "lane", "position", "what"), output)
    rate = report.events / report.seconds if report.seconds else 0.0
    note(f"{report.events:,} events of {report.jobs:,} jobs in {report.seconds:,.1f} s, {rate:,.0f} events/s")
    for late in report.late_lanes:
        note(f"lane {late}: its log lacks its beginning, so jobs of it that began before are not compared")
    if report.holds:
        note("all is as it should be")
        return
    more = sum(report.counts.values()) - len(report.findings)
    note(f"found: {report.found}" + (f"; {more:,} of them are not listed" if more else ""))


def _lane_row(lane: LaneHashes) -> dict[str, object]:
    """The hashes of a lane, both where the log's and the tables' differ."""
    both = ((name, getattr(lane.log, name), getattr(lane.tables, name)) for name in ("rows", "history", "counters"))
    hashes = {name: log if log == tables else f"log {log}, tables {tables}" for name, log, tables in both}
    return {"lane": lane.lane, "jobs": lane.jobs, **hashes}
