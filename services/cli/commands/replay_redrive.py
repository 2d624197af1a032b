"""`joblog replay redrive` and `joblog replay undo`: put jobs back, and take back those that have not started."""

import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Annotated, Final

import typer
from joblog.projections.monitor.job_filter import JobFilter, Order
from joblog.projections.monitor.models import Job
from joblog.projections.monitor.monitor import Monitor
from joblog.services.cli.commands.replay_mapping import JobMapping, mapping_of
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.progress import Pace
from joblog.services.cli.values import check_filled, parse_clock, parse_rate, queue_name, settings_of, task_name
from joblog.services.client.client import Client
from joblog.services.client.redriving import made_anew, put_back, taken_back
from joblog.services.client.templates import CommandRecord
from joblog.services.settings.model import Settings
from joblog.streams.contract.states import State
from joblog.streams.errors import InvalidData
from joblog.streams.replay.lineage import CLOCKS_MS, Fate, Lineage, began_ms, redrive_id
from joblog.streams.replay.log import EventReader

PAGE: Final = 200
#: How often an undo looks for jobs that a worker held, and gave back without having started them.
ROUNDS_MAX: Final = 10
SAMPLES: Final = 5
#: How long to wait until electors have decided what was sent.
DECIDED_S: Final = 20.0
#: Commands are sent in so many portions a second.
PORTIONS_A_SECOND: Final = 10
#: Codes of rejections that say that a job has moved since it was found.
MOVED: Final = frozenset({"wrong_state", "wrong_version", "ended", "duplicate"})
_WAITING: Final = frozenset({State.ENQUEUED, State.SCHEDULED})


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
    task: Annotated[str | None, typer.Option(help="Only jobs of this task.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")] = None,
    rate: Annotated[str, typer.Option(help="At most so many a second (100/s) or minute (600/m).")] = "100/s",
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
    queue_name(queue)
    task_name(task)
    if not dry_run and not reason.strip():
        raise InvalidData("--reason is missing: say why, for the history of each job")
    per_second = parse_rate(rate)
    mapped = None if mapping is None else mapping_of(mapping)
    settings = settings_of(ctx)
    one = resume or redrive_id(_now_ms(), secrets.randbits(32))
    # What came into its state after the redrive began is not its business: not even what it has put back.
    before = min(_instant(_began(one)), parse_clock(to) or datetime.max.replace(tzinfo=UTC))
    found = JobFilter(
        state=state, queue=queue, task=task, q=exception, changed_after=parse_clock(from_), changed_before=before,
        order=Order.OLDEST,
    )  # fmt: skip
    lineage = read_lineage(settings, one) if resume else Lineage(one)
    left = None if limit is None else max(limit - len(lineage.decided), 0)
    with monitor_of(settings) as monitor:
        total = _plan(islice(_chosen(monitor, found, exception, lineage), left), one, dry_run=dry_run, output=output)
        if dry_run or total == 0:
            return
        _confirm(total, yes)
        note(f"redrive {one}: after an interruption, repeat the command with --resume {one}")
        chosen = islice(_chosen(monitor, found, exception, lineage), total)
        try:
            with Client.from_settings(settings) as client:
                records = _records(monitor, client, chosen, mapped, one, reason)
                sent = _send(client, records, total, per_second)
        except KeyboardInterrupt:
            note(f"stopped: go on with --resume {one}, or take back with `joblog replay undo {one}`")
            raise typer.Exit(130) from None
    expected = len(lineage.decided) + sent
    _report(_wait_for(settings, one, lambda read: len(read.decided) >= expected), one, sent, expected, output)


def undo(
    ctx: typer.Context,
    redrive: Annotated[str, typer.Argument(metavar="ID", help="The id that `joblog replay redrive` printed.")],
    *,
    rate: Annotated[str, typer.Option(help="At most so many a second (100/s) or minute (600/m).")] = "100/s",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and send nothing.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete the jobs that a redrive put back and that have not started yet; the others are counted.

    A job that a worker holds counts as started. Safe to repeat.

    Example: joblog replay undo r019ab3c45d6e-1f2e3d4c
    """
    per_second = parse_rate(rate)
    _began(redrive)
    settings = settings_of(ctx)
    lineage = read_lineage(settings, redrive)
    if not dry_run:
        with Client.from_settings(settings) as client:
            for _ in range(ROUNDS_MAX):
                if not (waiting := _not_started(lineage)):
                    break
                records = (taken_back(job, fate, redrive, client.rules) for job, fate in waiting.items())
                _send(client, records, len(waiting), per_second)
                lineage = _wait_for(settings, redrive, partial(_have_moved, waiting))
    fates = lineage.put_back.values()
    document = {
        "redrive": redrive,
        "dry_run": dry_run,
        "put_back": len(fates),
        "deleted": sum(fate.undone for fate in fates),
        "not_started": len(_not_started(lineage)),
        "started": sum(fate.started for fate in fates),
    }
    print_document(document, output)
    if not dry_run and document["not_started"]:
        note("error: some are not decided yet: repeat the command")
        raise typer.Exit(1)


def _not_started(lineage: Lineage) -> dict[str, Fate]:
    return {job: fate for job, fate in lineage.put_back.items() if not fate.started and fate.state in _WAITING}


def _have_moved(waiting: Mapping[str, Fate], lineage: Lineage) -> bool:
    """Whether all of them were deleted, or moved before that."""
    return all(lineage.put_back[job].version > fate.version for job, fate in waiting.items())


def read_lineage(settings: Settings, redrive: str) -> Lineage:
    """What the log says of a redrive, from when it began to now."""
    lineage = Lineage(redrive)
    _read_on(settings, lineage, [None] * settings.lanes)
    return lineage


def _read_on(settings: Settings, lineage: Lineage, starts: Sequence[int | None]) -> list[int]:
    """Read on from these offsets (None: from when the redrive began); returns the next ones."""
    lanes = settings.lanes
    config, topic = settings.kafka.config(), settings.names.events
    with closing(EventReader(config, topic, lanes, client_id=f"{settings.topic_prefix}redrive")) as reader:
        found = [reader.bounds(lane, _began(lineage.redrive) - CLOCKS_MS) for lane in range(lanes)]
        bounds = [(low if start is None else start, high) for start, (low, high) in zip(starts, found, strict=True)]
        with Pace("events", sum(end - start for start, end in bounds)) as pace:
            for lane, (start, end) in enumerate(bounds):
                for value in reader.values(lane, start, end, pace.advance):
                    lineage.take(value)
    return [end for _, end in bounds]


def _chosen(monitor: Monitor, found: JobFilter, exception: str | None, lineage: Lineage) -> Iterator[Job]:
    """The jobs that are to be put back, the oldest first, without those for which that was decided already."""
    asked = {name: getattr(found, name) for name in JobFilter.__slots__}
    cursor = None
    while True:
        page = monitor.jobs(limit=PAGE, cursor=cursor, **asked)
        for job in page.items:
            if job.id not in lineage.decided and (exception is None or _is_of(job, exception)):
                yield job
        if (cursor := page.next_cursor) is None:
            return


def _is_of(job: Job, exception: str) -> bool:
    kind = job.exception.type if job.exception is not None else ""
    return exception in {kind, kind.rpartition(".")[2]}


def _plan(jobs: Iterator[Job], redrive: str, *, dry_run: bool, output: Output) -> int:
    """Show how many jobs of which kind there are, and some of them; returns how many."""
    kinds: Counter[tuple[str, str, str]] = Counter()
    samples: list[str] = []
    for job in jobs:
        kinds[job.task, job.queue, job.exception.type if job.exception is not None else ""] += 1
        if len(samples) < SAMPLES:
            samples.append(job.id)
    rows = [
        {"task": task, "queue": queue, "exception": kind or None, "jobs": count}
        for (task, queue, kind), count in kinds.most_common()
    ]
    total = kinds.total()
    if output is Output.JSON:
        if dry_run or total == 0:
            print_document({"dry_run": dry_run, "jobs": total, "kinds": rows, "samples": samples}, output)
        return total
    note(f"{total} jobs would be put back:" if dry_run else f"{total} jobs are to be put back by redrive {redrive}:")
    print_rows(rows, ("task", "queue", "exception", "jobs"), output)
    if samples:
        note(f"among them {', '.join(samples)}")
    return total


def _confirm(total: int, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidData(f"{total} jobs would be put back: add --yes, since there is no terminal to ask")
    typer.confirm(f"Put {total} jobs back?", abort=True, err=True)


def _records(
    monitor: Monitor, client: Client, jobs: Iterator[Job], mapped: JobMapping | None, redrive: str, reason: str
) -> Iterator[CommandRecord]:
    for job in jobs:
        snapshot = monitor.snapshot(job.id)
        if mapped is None:
            yield put_back(job, snapshot, redrive, reason, client.rules)
        elif snapshot is None:
            raise InvalidData(f"it is not known what job {job.id} was created with: put it back without --map")
        elif (arguments := mapped(job, snapshot)) is not None:
            yield made_anew(job, snapshot, arguments, redrive, client.rules)


def _send(client: Client, records: Iterator[CommandRecord], total: int, per_second: float) -> int:
    """Send portion by portion, not faster than that; returns how many."""
    portion = max(1, round(per_second / PORTIONS_A_SECOND))
    sent, started_s = 0, time.monotonic()
    with Pace("commands", total) as pace:
        while batch := list(islice(records, portion)):
            pause_s = started_s + sent / per_second - time.monotonic()
            if pause_s > 0:
                time.sleep(pause_s)
            client.send(batch)
            sent += len(batch)
            pace.advance(len(batch))
    return sent


def _wait_for(settings: Settings, redrive: str, is_done: Callable[[Lineage], bool]) -> Lineage:
    """The lineage when electors have decided what was sent, or as it is after `DECIDED_S`."""
    deadline_s = time.monotonic() + DECIDED_S
    lineage = Lineage(redrive)
    ends = _read_on(settings, lineage, [None] * settings.lanes)
    while not is_done(lineage) and time.monotonic() < deadline_s:
        time.sleep(0.2)
        ends = _read_on(settings, lineage, ends)
    return lineage


def _report(lineage: Lineage, redrive: str, sent: int, expected: int, output: Output) -> None:
    codes = Counter(lineage.rejected.values())
    undecided = max(expected - len(lineage.decided), 0)
    document = {
        "redrive": redrive,
        "sent": sent,
        "put_back": len(lineage.put_back),
        "rejected": dict(codes),
        "undecided": undecided,
    }
    print_document(document, output)
    if undecided:
        note(
            f"error: {undecided} commands are not decided yet: does an elector run? They are in the log, and not lost"
        )
    if undecided or codes.keys() - MOVED:
        raise typer.Exit(1)


def _began(redrive: str) -> int:
    ms = began_ms(redrive)
    if ms is None:
        raise InvalidData(f"{redrive!r:.60} is not the id of a redrive: `joblog replay redrive` prints it")
    return ms


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
