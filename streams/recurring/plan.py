"""What a decision becomes: the commands to send, and then the records that note how far it came."""

from dataclasses import dataclass
from datetime import datetime

from joblog.streams.contract.recurring import SKIPPED_MAX, Overlap, Progress, Skip, Skipped, record_key
from joblog.streams.recurring.due import Decision, cause_of
from joblog.streams.recurring.jobs import Command, Installation, create_command, delete_command
from joblog.streams.recurring.rows import Row, encode_aspect


@dataclass(frozen=True, slots=True)
class Plan:
    """All that one row has to have done: `commands`, and when Kafka has them, `notes`.

    If the new job has to end before the next one, `intended` is noted before the commands.
    """

    row: Row
    decision: Decision
    commands: tuple[Command, ...]
    decided: Progress

    @property
    def awaited(self) -> str | None:
        """The new job that has to end before the next one, if that matters."""
        definition = self.row.definition
        if not self.decision.create or definition is None or definition.overlap is Overlap.ALLOW:
            return None
        return self.decided.last_job_id

    @property
    def intended(self) -> Progress:
        """How far it came when the commands may have been sent, or not."""
        before = self.row.progress or Progress(through=self.decided.through)
        kept = before.model_dump(include={"last_job_id", "last_occurrence", "last_created_at", "last_ended_at"})
        return self.decided.model_copy(update={**kept, "sending": self.decision.create[0]})

    @property
    def is_intended(self) -> bool:
        """Whether that was noted before: the commands are sent once more."""
        return self.row.progress is not None and self.row.progress.sending == self.decision.create[0]

    def progress(self, created_at: datetime | None) -> Progress:
        """How far it came when the commands were stored at this time."""
        if not self.decision.create or created_at is None:
            return self.decided
        return self.decided.model_copy(update={"last_created_at": created_at})

    def notes(self, created_at: datetime | None) -> list[tuple[str, bytes | None]]:
        """Keys and values of records of the row's partition."""
        notes: list[tuple[str, bytes | None]] = [
            (record_key(self.row.id, Progress), encode_aspect(self.progress(created_at)))
        ]
        if _is_skip_over(self.row, self.decision):
            notes.append((record_key(self.row.id, Skip), None))
        return notes


def plan(row: Row, decision: Decision, now: datetime, where: Installation) -> Plan:
    """The plan for a decision on a row, which has a definition."""
    definition, last = row.definition, row.progress
    assert definition is not None
    commands = list[Command]()
    if decision.delete and last is not None and last.last_job_id is not None:
        commands.append(delete_command(last.last_job_id, definition, now))
    progress = Progress(through=decision.through) if last is None else last
    progress = progress.model_copy(update={"through": decision.through, "waiting": decision.waiting, "sending": None})
    for occurrence in decision.create:
        cause = cause_of(definition, decision, occurrence, waiting=None if last is None else last.waiting, now=now)
        command = create_command(definition, occurrence, cause, now, where)
        commands.append(command)
        made = {
            "last_job_id": command.job_id,
            "last_occurrence": occurrence,
            "last_created_at": now,
            "last_ended_at": None,
        }
        progress = progress.model_copy(update=made)
    if decision.left_out:
        left_out = (Skipped(occurrence=one, reason=why, at=now) for one, why in decision.left_out)
        progress = progress.model_copy(update={"skipped": (*progress.skipped, *left_out)[-SKIPPED_MAX:]})
    return Plan(row, decision, tuple(commands), progress)


def _is_skip_over(row: Row, decision: Decision) -> bool:
    """Whether the occurrence that was to be left out has passed."""
    if row.skip is None or row.schedule is None:
        return False
    skipped = row.schedule.next_after(row.skip.after)
    return skipped is not None and skipped <= decision.through
