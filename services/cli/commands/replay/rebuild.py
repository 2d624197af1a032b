"""`joblog replay rebuild`: the tables in Postgres, built anew beside the live ones and put in their place."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Final

import typer
from joblog.projections.replay.rebuild import rebuild as steps
from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.rebuild import PROCESSES
from joblog.projections.replay.rebuild.share import BESIDE
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import hinted
from joblog.services.cli.progress import STOPPED, Shown, shown
from joblog.services.cli.values import settings_of
from joblog.services.settings.model import Settings
from joblog.streams.errors import InvalidData
from joblog.streams.progress import Stopped

COLUMNS: Final = ("schema", "role", "records", "behind", "jobs", "bytes", "remark")


def rebuild_command(
    ctx: typer.Context,
    processes: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that fill the new tables, each with lanes of its own.")
    ] = PROCESSES,
    max_rate: Annotated[
        float | None, typer.Option(min=1, help="Events per second, at most.", show_default="as fast as it goes")
    ] = None,
    share: Annotated[
        float,
        typer.Option(min=0.05, max=1, help="The part of their time that the processes work while events arrive."),
    ] = BESIDE,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the new tables with the log before the swap.")
    ] = True,
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin again, without what a stopped rebuild has built.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Build from what is left of a log that has lost its beginning.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show which schema is live, new or old.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Put the old tables back.")] = False,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="Remove the old tables.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Build the tables in Postgres anew from the log, beside the live ones, and put them in their place.

    Projector, monitor and commands go on meanwhile. Ctrl-C stops it, and the same command goes on later. The former
    tables are kept in the schema SCHEMA_old: --rollback puts them back, --drop-old removes them. What has expired by
    the settings (JOBLOG_EXPIRY__...) is not in the new tables.

    Example: joblog replay rebuild --dry-run && joblog replay rebuild --max-rate 10000
    """
    chosen = {"--dry-run": dry_run, "--status": status, "--rollback": rollback, "--drop-old": drop_old}
    if len(names := [name for name, is_chosen in chosen.items() if is_chosen]) > 1:
        raise InvalidData(f"give one of {' and '.join(names)}")
    settings = settings_of(ctx)
    place = _place(settings)
    with hinted(settings):
        if status:
            print_rows((asdict(one) for one in steps.status(place)), COLUMNS, output)
        elif rollback:
            with _shown(output) as progress:
                waited_s = steps.roll_back(place, progress)
            _say_swapped(place, output, waited_s)
        elif drop_old:
            name = steps.drop_old(place)
            if output is Output.JSON:
                print_document({"dropped": name}, output)
            else:
                note(f"dropped {name}" if name else f"there is no {place.schemas.old} to drop")
        elif dry_run:
            print_document(asdict(steps.plan(place, processes, partial=partial)), output)
        else:
            with _shown(output) as progress:
                done = steps.rebuild(
                    place,
                    progress,
                    processes=processes,
                    rate=max_rate,
                    share=share,
                    verify=verify,
                    anew=anew,
                    partial=partial,
                    expiry=settings.expiry.rules,
                )
            print_document(asdict(done), output)


def _place(settings: Settings) -> Place:
    return Place(
        settings.kafka.config(), settings.names, settings.lanes, settings.dsn(), settings.postgres.schema_name
    )


def _say_swapped(place: Place, output: Output, waited_s: float) -> None:
    schemas = place.schemas
    if output is Output.JSON:
        print_document({"live": schemas.live, "kept": schemas.old, "swap_s": waited_s}, output)
    else:
        note(f"the tables kept in {schemas.old} are live again; those that were live are kept there now")


@contextmanager
def _shown(output: Output) -> Iterator[Shown]:
    """Progress; Ctrl-C stops in order, with the exit code 130."""
    try:
        with shown(output) as progress:
            yield progress
    except Stopped as stopped:
        note(f"{stopped}; the live tables are as they were, and the same command goes on from here")
        raise typer.Exit(STOPPED) from stopped
