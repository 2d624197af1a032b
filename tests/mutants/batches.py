"""The defences around batches: that their numbers are whole before they end, and that nothing counts twice."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_RECORDS: Final = "streams/lane/features/batch_records.py"
_OWNER: Final = "streams/lane/features/batch_owner.py"
_PARTS: Final = "streams/lane/features/batch_parts.py"
_BATCHES: Final = "tests/unit/streams/lane/features/test_batches.py"
_PROPERTY: Final = "tests/unit/streams/lane/features/test_batches_property.py"
_CLIENT: Final = "tests/unit/services/client/test_batches.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "batch-complete",
        "the wait for the marks of all lanes before a batch ends",
        _RECORDS,
        "return self.gave_up or all(",
        "return True or all(",
        _PROPERTY,
    ),
    mutant(
        "batch-mark-twice",
        "the memory of marks, which a client may send again",
        _RECORDS,
        "if mark in part.marks:",
        "if False:",
        _PROPERTY,
    ),
    mutant(
        "batch-added-twice",
        "the memory of additions, which a client may send again",
        _RECORDS,
        "if addition in batch.additions:",
        "if False:",
        _PROPERTY,
    ),
    mutant(
        "batch-older-report",
        "the numbers of reports, by which an older one is known",
        _OWNER,
        "[5] >= report.number:",
        "[5] < 0:",
        _BATCHES,
    ),
    mutant(
        "batch-behind",
        "that a lane which is behind puts the ends of its batches off",
        _OWNER,
        "if is_end and not caught_up and silent_ms < BEHIND_MS:",
        "if False:",
        _BATCHES,
    ),
    mutant(
        "batch-never-created",
        "giving up on a batch that is never created",
        _OWNER,
        "if caught_up and election.now_ms - batch.at_ms > pending_ms:",
        "if False:",
        _BATCHES,
    ),
    mutant(
        "batch-cancelled-start",
        "the question whether its batch is cancelled before a job starts",
        _PARTS,
        "reason = self.cancelled.get(job.extras.batch or \"\")",
        "reason = None",
        _BATCHES,
    ),
    mutant(
        "batch-shared",
        "that jobs of a batch share what they have of it after a take-over",
        "streams/lane/job.py",
        "extras = job.extras = of_batch(extras.batch)",
        "pass",
        _BATCHES,
    ),
    mutant(
        "batch-key",
        "the refusal of idempotency keys in a batch",
        "services/client/batches.py",
        "if key is not None:",
        "if False:",
        _CLIENT,
    ),
    mutant(
        "batch-waits-told",
        "that an end is told to the rest in the next turns",
        _OWNER,
        "if is_end and not self.waits.release(batch_id, state, out):",
        "if is_end and self.waits.release(batch_id, state, out) is None:",
        _BATCHES,
    ),
    mutant(
        "batch-waits-refused",
        "that what waits is told before the batch is forgotten",
        _OWNER,
        "if not self.waits.refuse(batch_id, None, text, out):",
        "if self.waits.refuse(batch_id, None, text, out) is None:",
        _BATCHES,
    ),
    mutant(
        "batch-in-parts",
        "that a batch in parts goes on with the part that was not acknowledged",
        "services/client/batches.py",
        "self._acknowledged = number + 1",
        "pass",
        _CLIENT,
    ),
    mutant(
        "batch-expired-count",
        "the number of batches that have expired, beyond which a missing one is a finding",
        "projections/replay/verification/totals.py",
        "if n > expired:",
        "if False:",
        "tests/integration/projections/expiry/test_expiry.py",
    ),
    mutant(
        "batch-expired-through",
        "until when batches have expired, after which a missing one is a finding",
        "projections/replay/verification/totals.py",
        "return kind if mark is not None and datetime.fromisoformat(changed_at) <= mark.through else None",
        "return kind if mark is not None else None",
        "tests/integration/projections/expiry/test_expiry.py",
    ),
    mutant(
        "batch-cancelled-comes-back",
        "deleting jobs of a cancelled batch that come to wait again",
        "streams/lane/features/batches.py",
        "            self.parts.job_moved(batch, job)\n",
        "",
        "tests/unit/streams/lane/features/test_cancelled_batches.py",
    ),
    mutant(
        "batch-awaited-late",
        "the time that each has that waits for a batch which is not created yet",
        _OWNER,
        "                batch.at_ms = election.now_ms\n",
        "                pass\n",
        "tests/unit/streams/lane/features/test_unknown_batches.py",
    ),
)  # fmt: skip
