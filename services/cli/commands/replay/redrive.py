"""`joblog replay redrive` and `joblog replay undo`: put jobs back, and take back those that have not started."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from joblog.projections.database import DatabaseAway
from joblog.services.cli.commands.replay.mapping import mapping_of
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.files import stoppable
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import hinted
from joblog.services.cli.progress import shown
from joblog.services.cli.values import (
    OfQueueOption,
    OfTaskOption,
    check_filled,
    parse_clock,
    parse_rate,
    queue_name,
    settings_of,
    task_name,
)
from joblog.services.replay import redriving
from joblog.services.replay.redriving import Choice, Plan, check_id
from joblog.streams.contract.states import State
from joblog.streams.errors import BrokersAway, EnqueueError, InvalidData

RateOption = Annotated[str, typer.Option(help="At most so many a second (100/s) or minute (600/m).")]


def redrive(
    ctx: typer.Context,
    *,
    state: Annotated[State, typer.Option(case_sensitive=False, help="Jobs in this state.")] = State.FAILED,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Only those that came into it at this time (14:00 is today) or later."),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Only those that came into it before this time.")] = None,
    exception: Annotated[
        str | None, typer.Option(help="Only those whose last exception is of this type, with or without module.")
    ] = None,
    task: OfTaskOption = None,
    queue: OfQueueOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")] = None,
    rate: RateOption = "100/s",
    mapping: Annotated[
        str | None,
        typer.Option("--map", help="Other arguments: MODULE:FUNCTION, FILE.py:FUNCTION, or a JSON file."),
    ] = None,
    reason: Annotated[str, typer.Option(help="The reason, recorded in the history of each job.")] = "",
    resume: Annotated[str | None, typer.Option(metavar="ID", help="Go on with this redrive: same options.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Put jobs back into their queues, chosen by state, time, exception, task and queue.

    The plan is shown first. A job that moved after it was found is left alone. The events name the redrive as their
    cause. With --map, new jobs with other arguments are created instead, whose parameter redriveOf names the old one,
    which stays as it is. After Ctrl-C, --resume ID with the same options goes on; `joblog replay undo ID` takes back.

    Example: joblog replay redrive --from 14:00 --to 15:00 --exception ValueError --reason "the disk is back"
    """
    check_filled(exception=exception)
    if not dry_run and not reason.strip():
        raise InvalidData("--reason is missing: say why, for the history of each job")
    per_second = parse_rate(rate)
    mapped = None if mapping is None else mapping_of(mapping)
    choice = Choice(state, parse_clock(from_), parse_clock(to), exception, task_name(task), queue_name(queue), limit)
    settings = settings_of(ctx)
    with (
        hinted(settings),
        shown(output) as progress,
        _stoppable("nothing was sent"),
        redriving.redriving(settings, choice, resume, progress) as one,
    ):
        plan = one.plan()
        progress.close()
        _print_plan(plan, dry_run=dry_run, output=output)
        if dry_run or not plan.jobs:
            return
        _confirm(plan.jobs, yes)
        note(f"redrive {one.id}: after an interruption, repeat the command with --resume {one.id}")
        with _stoppable(f"go on with --resume {one.id}, or take back with `joblog replay undo {one.id}`"):
            done = one.outcome(one.send(reason, mapped, per_second))
    print_document({**done._asdict()}, output)
    if done.undecided:
        note(f"error: {done.undecided} commands are not decided yet, and not lost: does an elector run?")
    if not done.holds:
        raise typer.Exit(1)


def undo(
    ctx: typer.Context,
    redrive: Annotated[str, typer.Argument(metavar="ID", help="The id that `joblog replay redrive` printed.")],
    *,
    rate: RateOption = "100/s",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and send nothing.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete the jobs that a redrive put back and that have not started yet; the others are counted.

    A job that a worker holds counts as started; one that somebody else's command has moved since is theirs, and is
    left alone. Safe to repeat.

    Example: joblog replay undo r019ab3c45d6e-1f2e3d4c
    """
    per_second = parse_rate(rate)
    check_id(redrive)
    settings = settings_of(ctx)
    with shown(output) as progress, _stoppable("repeat the command: what is deleted stays so"):
        done = redriving.undo(settings, redrive, per_second=per_second, dry_run=dry_run, told=progress)
    print_document({"dry_run": dry_run, **done._asdict()}, output)
    if not dry_run and done.not_started:
        note("error: some are not decided yet: repeat the command")
        raise typer.Exit(1)


@contextmanager
def _stoppable(then: str) -> Iterator[None]:
    """Say how to go on when the command is stopped, or the brokers or Postgres go away."""
    try:
        with stoppable(then):
            yield
    except (EnqueueError, BrokersAway, DatabaseAway) as error:
        if not getattr(error, "__notes__", ()):
            error.add_note(then)
        raise


def _print_plan(plan: Plan, *, dry_run: bool, output: Output) -> None:
    total, kinds = plan.jobs, plan.kinds
    if output is Output.JSON:
        if dry_run or total == 0:
            print_document({"dry_run": dry_run, "jobs": total, "kinds": kinds, "samples": plan.samples}, output)
        return
    put_back = f"are to be put back by redrive {plan.redrive}:"
    note(f"{total} jobs {'would be put back:' if dry_run else put_back}")
    print_rows(kinds, ("task", "queue", "exception", "jobs"), output)
    if plan.samples:
        note(f"among them {', '.join(plan.samples)}")


def _confirm(total: int, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidData(f"{total} jobs would be put back: add --yes, since there is no terminal to ask")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C ends the question at once
    try:
        typer.confirm(f"Put {total} jobs back?", abort=True, err=True)
    finally:
        signal.signal(signal.SIGINT, before)
