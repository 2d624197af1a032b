"""Expiry: rows of jobs that ended long enough ago leave the tables; the log keeps their events.

A pass deletes, by small batches, each in a short transaction that begins by locking `offsets`, as the projector's do.
What "long enough" means is a pure rule of state, queue, task, and when the job ended (rules.py). Its present is not
the time of day but the time up to which the tables hold the log: a projector that is late sees first what followed
an end, so a job that is requeued within the time for which it is kept never loses its row.

What was deleted is recorded, so that the tables can still be compared with the log exactly:

- `expired`: for each lane, queue, task and state, the greatest `changed_at` of the rows that were deleted, and how
  many they were. A row may be missing only if its job's last event is such an end, not later than that; and not more
  may be missing than were deleted.
- `expired_batches`: the same of batches, for each lane and state. A batch of which more is told is there again.
- `returned`: jobs of which events came after their rows had expired (an ended job was revived). Their rows begin with
  that event, and know nothing of what was before.
- `expiry`: of each lane, the last complete pass: by which rules, up to which time, and from which offset of the lane
  on rows came later. A row that this pass had to delete and that is still there is an error.

Inside: rules (pure), passing (one pass over the tables), now (the same for commands), expiry.sql. May import:
schema, database, statements.
"""
