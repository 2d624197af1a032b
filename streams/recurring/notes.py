"""What the recurring process writes into the topic `recurring`: how far it came with each definition."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from joblog.streams.contract.recurring import Progress, record_key
from joblog.streams.recurring.deciding import UNREAD, IsRunning, to_note
from joblog.streams.recurring.held import Held
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.plan import Plan
from joblog.streams.recurring.rows import Row, encode_aspect
from joblog.streams.recurring.sender import Record


def of_intentions(topic: str, plans: Iterable[tuple[int, Plan]]) -> list[Record]:
    """That the jobs of these plans, which are of these partitions, are about to be created; once for each."""
    return [_note(topic, number, made.row, made.intended) for number, made in plans if not made.is_intended]


def of_progress(topic: str, held: Iterable[tuple[int, Held]]) -> list[Record]:
    """How far it came with the plans of these partitions that were carried out."""
    return [Record(topic, number, key, value) for number, one in held for key, value in one.notes()]


def of_ends(
    topic: str, held: Mapping[int, Held], is_running: IsRunning, now: datetime, where: Installation
) -> list[Record]:
    """Which last jobs have ended, in the rows, too: the next process need not read the log from their creation on.

    Seldom: a definition that comes more often than it is noted has its next job before.
    """
    notes = list[Record]()
    for number, one in held.items():
        for row in to_note(one.rows.rows.values() if one.is_ready else (), is_running, now, where):
            assert row.progress is not None
            row.progress = row.progress.model_copy(update={"last_ended_at": now - UNREAD})
            notes.append(_note(topic, number, row, row.progress))
    return notes


def _note(topic: str, number: int, row: Row, progress: Progress) -> Record:
    return Record(topic, number, record_key(row.id, Progress), encode_aspect(progress))
