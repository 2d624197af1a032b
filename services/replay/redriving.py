"""Jobs put back by filter, and taken back if they have not started: what `joblog replay redrive` and `undo` do.

Theory of operation. A redrive has an id that begins with its time. 1. The tables tell which jobs are to be put back:
those that came into their state before it began. 2. Each gets one command, whose id has the ids of redrive and job,
and which names the version at which the job was found: the elector refuses it for a job that moved, and the second of
two. 3. Which were sent is read back from `commands`, what became of them from `events`. So nothing has to be stored
to go on, and two processes may do the same redrive.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

from joblog.projections.monitor.job_filter import JobFilter, Order
from joblog.projections.monitor.models import Job
from joblog.projections.monitor.monitor import Monitor
from joblog.services.client.client import Client
from joblog.services.client.redriving import Arguments, made_anew, put_back, taken_back
from joblog.services.client.templates import CommandRecord
from joblog.services.replay.pacing import paced
from joblog.services.replay.redrive_log import RedriveLog
from joblog.services.settings.model import Settings
from joblog.streams.contract.states import State
from joblog.streams.errors import InvalidData
from joblog.streams.progress import Told, silent
from joblog.streams.replay.lineage import Fate, Lineage, began_ms, redrive_id

PAGE: Final = 200
SAMPLES: Final = 5
#: How often an undo looks for jobs that a worker held, and gave back without having started them.
ROUNDS_MAX: Final = 10
#: How long to wait until electors have decided what was sent.
DECIDED_S: Final = 20.0
RATE: Final = 100.0
#: Codes of rejections that say that a job has moved since it was found.
MOVED: Final = frozenset({"wrong_state", "wrong_version", "ended", "duplicate"})
_WAITING: Final = frozenset({State.ENQUEUED, State.SCHEDULED})

#: From a job and its snapshot to its new arguments; None leaves the job out.
JobMapping = Callable[[Job, dict[str, Any]], Arguments | None]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which jobs: those that came into `state` between two instants, the oldest first, at most `limit`.

    - exception: the type of the last exception, with or without its module.
    """

    state: State = State.FAILED
    since: datetime | None = None
    until: datetime | None = None
    exception: str | None = None
    task: str | None = None
    queue: str | None = None
    limit: int | None = None


class Plan(NamedTuple):
    """What a redrive is going to put back: how many jobs of which kinds, and some of them."""

    redrive: str
    jobs: int
    kinds: list[dict[str, Any]]
    samples: list[str]


class Redriven(NamedTuple):
    """What a redrive did: commands sent by this process, jobs put back by all, and what was not."""

    redrive: str
    sent: int
    put_back: int
    rejected: dict[str, int]
    undecided: int

    @property
    def holds(self) -> bool:
        """Whether all is decided, and no job was refused but those that moved."""
        return not self.undecided and not self.rejected.keys() - MOVED


class Undone(NamedTuple):
    """What became of the jobs that a redrive put back; `moved`: somebody else's command came after it."""

    redrive: str
    put_back: int
    deleted: int
    not_started: int
    started: int
    moved: int


def redrive(
    settings: Settings,
    choice: Choice,
    reason: str,
    *,
    mapping: JobMapping | None = None,
    per_second: float = RATE,
    resume: str | None = None,
    told: Told = silent,
) -> Redriven:
    """Put jobs back; `resume` is the id of a redrive that goes on. Raises Stopped, EnqueueError, DatabaseAway."""
    with redriving(settings, choice, resume, told) as one:
        if not one.plan().jobs:
            return one.outcome(0)
        return one.outcome(one.send(reason, mapping, per_second))


@contextmanager
def redriving(
    settings: Settings, choice: Choice, resume: str | None = None, told: Told = silent
) -> Iterator["Redrive"]:
    """A redrive whose plan can be looked at before it sends."""
    one = resume or redrive_id(time.time_ns() // 1_000_000, secrets.randbits(32))
    check_id(one)
    log = RedriveLog(settings, one, told)
    known = log.sent() | log.read().decided if resume else set()
    with Monitor(settings.dsn(), settings.postgres.schema_name, connections_max=1) as monitor:
        yield Redrive(settings, monitor, log, choice, known, told)


class Redrive:
    """One redrive; `known`: the jobs whose commands are in the log already."""

    def __init__(
        self, settings: Settings, monitor: Monitor, log: RedriveLog, choice: Choice, known: set[str], told: Told
    ) -> None:
        self._settings, self._monitor, self._log, self._choice = settings, monitor, log, choice
        self._known, self._told = known, told
        self.id = log.redrive
        self._total = 0

    def plan(self) -> Plan:
        """Count the jobs that are to be put back."""
        kinds: Counter[tuple[str, str, str]] = Counter()
        samples: list[str] = []
        limit = self._choice.limit
        for job in islice(self._chosen(), None if limit is None else max(limit - len(self._known), 0)):
            kinds[job.task, job.queue, job.exception.type if job.exception is not None else ""] += 1
            if len(samples) < SAMPLES:
                samples.append(job.id)
        self._total = kinds.total()
        rows = [
            {"task": task, "queue": queue, "exception": kind or None, "jobs": count}
            for (task, queue, kind), count in kinds.most_common()
        ]
        return Plan(self.id, self._total, rows, samples)

    def send(self, reason: str, mapping: JobMapping | None = None, per_second: float = RATE) -> int:
        """Send the commands, not more than the plan counted; returns how many."""
        with Client.from_settings(self._settings) as client:
            records = self._records(client, self._planned(), mapping, reason)
            return _send(client, records, self._total, per_second, self._told)

    def outcome(self, sent: int) -> Redriven:
        """What the redrive led to, when electors have decided it, or after `DECIDED_S`."""
        expected = len(self._known) + sent
        lineage = self._log.wait_for(lambda read: len(read.decided) >= expected, DECIDED_S)
        undecided = max(expected - len(lineage.decided), 0)
        return Redriven(self.id, sent, len(lineage.put_back), dict(Counter(lineage.rejected.values())), undecided)

    def _planned(self) -> Iterator[Job]:
        """Not more jobs than the plan counted."""
        return islice(self._chosen(), self._total)

    def _chosen(self) -> Iterator[Job]:
        """The jobs that are to be put back, the oldest first, without those whose commands are in the log.

        What came into its state after the redrive began is not its business: not even what it has put back.
        """
        choice = self._choice
        found = JobFilter(
            state=choice.state, queue=choice.queue, task=choice.task, q=choice.exception, order=Order.OLDEST,
            changed_after=choice.since, changed_before=min(_instant(check_id(self.id)), choice.until or _NEVER),
        )  # fmt: skip
        asked = {name: getattr(found, name) for name in JobFilter.__slots__}
        cursor = None
        while True:
            page = self._monitor.jobs(limit=PAGE, cursor=cursor, **asked)
            for job in page.items:
                if job.id not in self._known and (choice.exception is None or _is_of(job, choice.exception)):
                    yield job
            if (cursor := page.next_cursor) is None:
                return

    def _records(
        self, client: Client, jobs: Iterator[Job], mapping: JobMapping | None, reason: str
    ) -> Iterator[CommandRecord]:
        for job in jobs:
            snapshot = self._monitor.snapshot(job.id)
            if mapping is None:
                yield put_back(job, snapshot, self.id, reason, client.rules)
            elif snapshot is None:
                raise InvalidData(f"it is not known what job {job.id} was created with: put it back without --map")
            elif (arguments := mapping(job, snapshot)) is not None:
                yield made_anew(job, snapshot, arguments, self.id, client.rules)


def undo(
    settings: Settings, redrive: str, *, per_second: float = RATE, dry_run: bool = False, told: Told = silent
) -> Undone:
    """Delete what a redrive put back and has not started; safe to repeat. Raises as `redrive` does."""
    check_id(redrive)
    log = RedriveLog(settings, redrive, told)
    lineage = log.read()
    if not dry_run:
        with Client.from_settings(settings) as client:
            for _ in range(ROUNDS_MAX):
                if not (waiting := _not_started(lineage)):
                    break
                versions = {job: fate.version for job, fate in waiting.items()}
                records = (taken_back(job, fate, redrive, client.rules) for job, fate in waiting.items())
                _send(client, records, len(waiting), per_second, told)
                lineage = log.wait_for(partial(_have_moved, versions), DECIDED_S)
    fates = lineage.put_back.values()
    return Undone(
        redrive,
        len(fates),
        deleted=sum(fate.undone for fate in fates),
        not_started=len(_not_started(lineage)),
        started=sum(fate.started for fate in fates),
        moved=sum(fate.moved and not fate.started and not fate.undone for fate in fates),
    )


def check_id(redrive: str) -> int:
    """When a redrive began, unix milliseconds; InvalidData for what is not the id of one."""
    if (ms := began_ms(redrive)) is None:
        raise InvalidData(f"{redrive!r:.60} is not the id of a redrive: `joblog replay redrive` prints it")
    return ms


def _not_started(lineage: Lineage) -> dict[str, Fate]:
    return {
        job: fate
        for job, fate in lineage.put_back.items()
        if not fate.started and not fate.moved and fate.state in _WAITING
    }


def _have_moved(versions: Mapping[str, int], lineage: Lineage) -> bool:
    """Whether all of them were deleted, or moved before that."""
    return all(lineage.put_back[job].version > version for job, version in versions.items())


def _send(client: Client, records: Iterator[CommandRecord], total: int, per_second: float, told: Told) -> int:
    sent = 0

    def tell() -> None:
        told("sending commands", sent, total)

    for batch in paced(records, per_second, tell):
        tell()
        client.send(batch)
        sent += len(batch)
    return sent


def _is_of(job: Job, exception: str) -> bool:
    kind = job.exception.type if job.exception is not None else ""
    return exception in {kind, kind.rpartition(".")[2]}


_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
