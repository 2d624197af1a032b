-- How a batch of events gets into the tables: staged by COPY, then moved by a few statements.

-- name: staged
-- The columns of all staged jobs; a part of the tables below.
    id                uuid NOT NULL,
    changed_at        timestamptz NOT NULL,
    first_offset      bigint NOT NULL,
    log_offset        bigint NOT NULL,
    first_version     integer NOT NULL,
    version           integer NOT NULL,
    attempt           integer NOT NULL,
    state             job_state NOT NULL,
    queue             text NOT NULL,
    task              text NOT NULL,

-- name: stage_jobs
-- What the batch says of each job, its events taken together; lives as long as the connection.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_jobs (
    -- include: staged
    state_version     integer, -- null: no transition in this batch, only parameters were set
    lease             integer,
    worker            text,
    log_ms            bigint, -- this and the next two matter if the job is not in the tables
    created_at        timestamptz,
    lane              smallint,
    retry             integer, -- null: as before; so all below but those that a transition sets
    priority          integer,
    due               timestamptz,
    parent            uuid,
    continue_on       text,
    exception_type    text,
    exception_message text,
    defaults          jsonb, -- parameters that the job was created with
    parameters        jsonb, -- those set in this batch
    spec              json
) ON COMMIT DELETE ROWS

-- name: stage_moves
-- What usually happened to a job that is in the tables: it was enqueued, assigned, ended. Lives as long as the
-- connection. These are nearly all, and to move so few columns costs a fifth less.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_moves (
    -- include: staged
    state_version     integer NOT NULL,
    lease             integer,
    worker            text
) ON COMMIT DELETE ROWS

-- name: stage_history
-- Every job event of the batch, if they are staged; lives as long as the connection.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_history (
    job       uuid NOT NULL,
    version   integer NOT NULL,
    lane      smallint NOT NULL,
    state     job_state NOT NULL,
    traversed boolean NOT NULL,
    attempt   integer NOT NULL,
    at        timestamptz NOT NULL,
    type      text NOT NULL,
    log_offset bigint NOT NULL,
    reason    text,
    event     text NOT NULL
) ON COMMIT DELETE ROWS

-- name: lanes
-- Make sure that each lane has an offset, the beginning if it is new.
INSERT INTO offsets (lane, next_offset)
SELECT lane, 0 FROM unnest(%(lanes)s::smallint[]) AS lane
ON CONFLICT DO NOTHING

-- name: offsets
-- Where to go on in each lane.
SELECT lane, next_offset FROM offsets WHERE lane = ANY (%(lanes)s::smallint[])

-- name: tables
-- Which tables these are: a rebuild puts others in their place under the same names.
SELECT 'offsets'::regclass::oid

-- name: move_offsets
-- Go on from where we are, if nobody else did, and if these are still the same tables: what is staged here cannot go
-- into others, whose types are others. The rows stay locked until the end of the transaction.
UPDATE offsets
SET
    next_offset = moved.next_offset,
    log_time = to_timestamp(moved.log_ms / 1000.0),
    current_at = to_timestamp(moved.log_ms / 1000.0)
FROM unnest(
    %(lanes)s::smallint[], %(expected)s::bigint[], %(next)s::bigint[], %(log_ms)s::bigint[]
) AS moved (lane, expected, next_offset, log_ms)
WHERE offsets.lane = moved.lane AND offsets.next_offset = moved.expected AND offsets.tableoid = %(tables)s::oid

-- name: stay_current
-- Note that nothing was left to apply in these lanes at this moment.
UPDATE offsets SET current_at = now()
FROM unnest(%(lanes)s::smallint[], %(expected)s::bigint[]) AS seen (lane, expected)
WHERE offsets.lane = seen.lane AND offsets.next_offset = seen.expected

-- name: copy_jobs
-- The order of columns is that of rows.job_row.
COPY staged_jobs FROM STDIN

-- name: copy_history
-- The order of columns is that of rows.staged_event.
COPY staged_history FROM STDIN

-- name: copy_new_jobs
-- Jobs that are not in the tables; the order of columns is that of blocks._new_job.
COPY jobs (
    id, created_at, changed_at, log_offset, version, attempt, lane, state, queue, task, state_version, lease, worker,
    retry, priority, due, parent, continue_on, exception_type, exception_message, parameters, spec
) FROM STDIN (FORMAT binary)

-- name: copy_moved_jobs
-- What usually happens to a job that is in the tables; the order of columns is that of blocks._moved_job.
COPY staged_moves (
    id, changed_at, first_offset, log_offset, first_version, version, attempt, state_version, state, queue, task,
    lease, worker
) FROM STDIN (FORMAT binary)

-- name: copy_changed_jobs
-- What else happens to a job that is in the tables; the order of columns is that of blocks._changed_job.
COPY staged_jobs (
    id, changed_at, first_offset, log_offset, first_version, version, attempt, log_ms, created_at, lane, state, queue,
    task, state_version, lease, worker, retry, priority, due, parent, continue_on, exception_type, exception_message,
    defaults, parameters, spec
) FROM STDIN (FORMAT binary)

-- name: copy_new_history
-- Events that are not in the tables; the order of columns is that of blocks.history.
COPY history (job, version, last_version, events) FROM STDIN (FORMAT binary)

-- name: changes
-- What a staged row changes of a job; a part of the statements below.
state = s.state,
version = s.version,
attempt = s.attempt,
log_offset = s.log_offset,
queue = s.queue,
task = s.task,
state_version = coalesce(s.state_version, j.state_version),
changed_at = CASE WHEN s.state_version IS NULL THEN j.changed_at ELSE s.changed_at END,
due = CASE WHEN s.state_version IS NULL THEN j.due ELSE s.due END,
worker = CASE WHEN s.state_version IS NULL THEN j.worker ELSE s.worker END,
lease = CASE WHEN s.state_version IS NULL THEN j.lease ELSE s.lease END,
retry = coalesce(s.retry, j.retry),
priority = coalesce(s.priority, j.priority),
parent = coalesce(s.parent, j.parent),
continue_on = coalesce(s.continue_on, j.continue_on),
exception_type = coalesce(s.exception_type, j.exception_type),
exception_message = CASE WHEN s.exception_type IS NULL THEN j.exception_message ELSE s.exception_message END,
parameters = CASE
    WHEN s.defaults IS NULL AND s.parameters IS NULL THEN j.parameters
    ELSE coalesce(s.defaults, '{}') || coalesce(j.parameters, '{}') || coalesce(s.parameters, '{}')
END,
spec = coalesce(s.spec, j.spec)

-- name: before
-- The job `j` that a staged row goes on from, as `o`, where it is found by its place; a part of the statements below.
JOIN jobs AS o ON o.id = s.id AND o.version = s.first_version - 1 AND o.log_offset < s.first_offset
WHERE j.ctid = o.ctid
RETURNING o.lane AS old_lane, o.queue AS old_queue, o.state AS old_state, s.queue, s.state

-- name: move_jobs
-- Move the jobs that the tables know just up to the batch. Says from where to where how many of them went; those that
-- are not among them do not simply go on.
WITH moved AS (
    UPDATE jobs AS j SET
        state = s.state,
        version = s.version,
        attempt = s.attempt,
        log_offset = s.log_offset,
        queue = s.queue,
        task = s.task,
        state_version = s.state_version,
        changed_at = s.changed_at,
        due = NULL,
        worker = s.worker,
        lease = s.lease
    FROM staged_moves AS s
    -- include: before
)
SELECT old_lane, old_queue, old_state, queue, state, count(*)
FROM moved GROUP BY old_lane, old_queue, old_state, queue, state

-- name: change_jobs
-- The same for jobs to which more happened.
WITH moved AS (
    UPDATE jobs AS j SET
        -- include: changes
    FROM staged_jobs AS s
    -- include: before
)
SELECT old_lane, old_queue, old_state, queue, state, count(*)
FROM moved GROUP BY old_lane, old_queue, old_state, queue, state

-- name: count_new
-- Count jobs where they are now, and no longer where they were.
INSERT INTO counts (lane, queue, state, n)
SELECT lane, queue, state, n FROM unnest(
    %(lanes)s::smallint[], %(queues)s::text[], %(states)s::job_state[], %(n)s::bigint[]
) AS new (lane, queue, state, n)
ON CONFLICT (lane, queue, state) DO UPDATE SET n = counts.n + excluded.n

-- name: count_ends
-- Count the ends that `copy_new_history` brought: ever, in their day and in their hour.
INSERT INTO outcomes (lane, period, since, state, n)
SELECT lane, period, since, state, sum(n)
FROM unnest(
    %(lanes)s::smallint[], %(hours)s::timestamptz[], %(states)s::job_state[], %(n)s::bigint[]
) AS ends (lane, hour, state, n) CROSS JOIN LATERAL (VALUES
    ('ever'::period, 'epoch'::timestamptz), ('day', date_trunc('day', hour)), ('hour', hour)
) AS buckets (period, since)
GROUP BY lane, period, since, state
ON CONFLICT (period, since, lane, state) DO UPDATE SET n = outcomes.n + excluded.n

-- name: end_lives
-- Forget jobs that were created anew under the same id; that they ended stays counted.
WITH forgotten AS (
    DELETE FROM history WHERE job = ANY (%(jobs)s::uuid[])
), unreturned AS (
    DELETE FROM returned WHERE job = ANY (%(jobs)s::uuid[])
), ended AS (
    DELETE FROM jobs WHERE id = ANY (%(jobs)s::uuid[]) RETURNING lane, queue, state
)
INSERT INTO counts (lane, queue, state, n)
SELECT lane, queue, state, -count(*) FROM ended GROUP BY lane, queue, state
ON CONFLICT (lane, queue, state) DO UPDATE SET n = counts.n + excluded.n

-- name: apply_jobs
-- Insert new jobs, move known ones to a newer version, and keep the counts exact: one less where a job was, one
-- more where it is. Returns, with a remark, the jobs that cannot be done so, and those with a gap in the versions:
-- `reborn` was created again behind what is known, and `overlapping` goes on from known events, or is of an
-- earlier life: without the known ones, the rest has to be folded again.
WITH staged AS MATERIALIZED (
    SELECT
        s.*, j.version AS old_version, j.log_offset AS old_offset, j.queue AS old_queue, j.state AS old_state,
        CASE
            WHEN s.first_version = 1 AND s.spec IS NOT NULL AND s.first_offset > j.log_offset THEN 'reborn'
            WHEN s.version > j.version AND (s.first_version <= j.version OR s.log_offset <= j.log_offset)
                THEN 'overlapping'
            WHEN s.first_version > coalesce(j.version, 0) + 1 THEN 'gap'
        END AS remark
    FROM staged_jobs AS s LEFT JOIN jobs AS j ON j.id = s.id
), inserted AS (
    INSERT INTO jobs (
        id, lane, state, version, state_version, attempt, retry, priority, lease, created_at, changed_at, due,
        log_offset, parent, queue, task, worker, continue_on, exception_type, exception_message, parameters, spec
    )
    SELECT
        id, lane, state, version, state_version, attempt, coalesce(retry, 0), coalesce(priority, 0), lease,
        created_at, changed_at, due, log_offset, parent, queue, task, worker, continue_on, exception_type,
        exception_message,
        CASE WHEN defaults IS NULL THEN parameters ELSE defaults || coalesce(parameters, '{}') END,
        spec
    FROM staged WHERE old_version IS NULL
    RETURNING lane, queue, state
), updated AS (
    UPDATE jobs AS j SET
        -- include: changes
    FROM staged AS s
    WHERE j.id = s.id AND s.old_version < s.version
    RETURNING j.lane, s.old_queue, s.old_state, j.queue, j.state
), moves AS (
    SELECT lane, queue, state, count(*) AS n FROM inserted GROUP BY lane, queue, state
    UNION ALL
    SELECT lane, queue, state, count(*) FROM updated GROUP BY lane, queue, state
    UNION ALL
    SELECT lane, old_queue, old_state, -count(*) FROM updated GROUP BY lane, old_queue, old_state
), counted AS (
    INSERT INTO counts (lane, queue, state, n)
    SELECT lane, queue, state, sum(n) FROM moves GROUP BY lane, queue, state HAVING sum(n) <> 0
    ON CONFLICT (lane, queue, state) DO UPDATE SET n = counts.n + excluded.n
)
SELECT
    remark, id::text, coalesce(old_version, 0), coalesce(old_offset, 0), lane, first_offset, first_version, log_ms
FROM staged WHERE remark IS NOT NULL

-- name: returned
-- Of these jobs, of which no row is there and events come that are not their first, those whose rows have expired; note
-- them. That a row was there, nobody knows: but one of this task in this lane that expired, or none did.
INSERT INTO returned (job, version)
SELECT j.id, j.version
FROM jobs AS now
JOIN unnest(%(jobs)s::uuid[], %(versions)s::integer[]) AS j (id, version) ON now.id = j.id
WHERE EXISTS (SELECT FROM expired AS e WHERE e.lane = now.lane AND e.task = now.task)
ON CONFLICT (job) DO UPDATE SET version = excluded.version
RETURNING job::text

-- name: apply_history
-- Keep every staged event once, and count the ends among the new ones: ever, in its day and in its hour.
WITH staged AS (
    SELECT DISTINCT ON (job, version) * FROM staged_history ORDER BY job, version, log_offset
), fresh AS (
    INSERT INTO history (job, version, last_version, events)
    SELECT job, version, version, ARRAY[event]
    FROM staged AS s
    WHERE NOT EXISTS (
        SELECT FROM history AS h WHERE h.job = s.job AND h.version <= s.version AND h.last_version >= s.version
    )
    ON CONFLICT DO NOTHING
    RETURNING job, version
), ends AS (
    SELECT lane, state, date_trunc('hour', at) AS hour, count(*) AS n
    FROM staged JOIN fresh USING (job, version)
    WHERE type IN ('job.succeeded', 'job.failed', 'job.deleted') AND NOT traversed
    GROUP BY lane, state, hour
)
INSERT INTO outcomes (lane, period, since, state, n)
SELECT lane, period, since, state, sum(n)
FROM ends CROSS JOIN LATERAL (VALUES
    ('ever'::period, 'epoch'::timestamptz), ('day', date_trunc('day', hour)), ('hour', hour)
) AS buckets (period, since)
GROUP BY lane, period, since, state
ON CONFLICT (period, since, lane, state) DO UPDATE SET n = outcomes.n + excluded.n

-- name: apply_worker
-- Take what a worker's event says, unless a newer one is known: the log of a lane has an order, those of two lanes
-- have none but their times.
INSERT INTO workers (id, state, queues, tasks, slots, host, pid, started_at, heartbeat, lane, log_offset)
VALUES (
    %(id)s, %(state)s, %(queues)s, %(tasks)s, %(slots)s, %(host)s, %(pid)s, %(started_at)s, %(heartbeat)s,
    %(lane)s, %(log_offset)s
)
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, queues = excluded.queues, tasks = excluded.tasks, slots = excluded.slots,
    host = excluded.host, pid = excluded.pid, started_at = excluded.started_at, heartbeat = excluded.heartbeat,
    lane = excluded.lane, log_offset = excluded.log_offset
WHERE CASE
    WHEN workers.lane = excluded.lane THEN workers.log_offset < excluded.log_offset
    ELSE workers.heartbeat <= excluded.heartbeat
END

-- name: apply_batch
-- Take what a batch's event says, unless a newer one is known: all of them are in one lane.
INSERT INTO batches (
    id, created_at, changed_at, log_offset, total, created, succeeded, failed, deleted, batch, parent, version, state,
    lane, cancelled, continue_on, description, reason
)
VALUES (
    %(id)s, %(created_at)s, %(changed_at)s, %(log_offset)s, %(total)s, %(created)s, %(succeeded)s, %(failed)s,
    %(deleted)s, %(batch)s, %(parent)s, %(version)s, %(state)s, %(lane)s, %(cancelled)s, %(continue_on)s,
    %(description)s, %(reason)s
)
ON CONFLICT (id) DO UPDATE SET
    created_at = excluded.created_at, changed_at = excluded.changed_at, log_offset = excluded.log_offset,
    total = excluded.total, created = excluded.created, succeeded = excluded.succeeded, failed = excluded.failed,
    deleted = excluded.deleted, batch = excluded.batch, parent = excluded.parent, version = excluded.version,
    state = excluded.state, lane = excluded.lane, cancelled = excluded.cancelled,
    continue_on = excluded.continue_on, description = excluded.description, reason = excluded.reason
WHERE batches.log_offset < excluded.log_offset

-- name: add_members
-- Note which jobs were created in which batch.
INSERT INTO batch_jobs (batch, job, log_offset)
SELECT batch, job, log_offset FROM unnest(
    %(batches)s::uuid[], %(jobs)s::uuid[], %(offsets)s::bigint[]
) AS new (batch, job, log_offset)
ON CONFLICT DO NOTHING

-- name: add_parents
-- Note for which jobs those wait that wait for several.
INSERT INTO job_parents (parent, job, log_offset, lane)
SELECT parent, job, log_offset, lane FROM unnest(
    %(parents)s::uuid[], %(jobs)s::uuid[], %(offsets)s::bigint[], %(lanes)s::smallint[]
) AS new (parent, job, log_offset, lane)
ON CONFLICT DO NOTHING

-- name: apply_rejected
-- Keep a command that could not be done.
INSERT INTO rejected (lane, log_offset, at, code, reason, command, command_id, job, position, existing)
VALUES (
    %(lane)s, %(log_offset)s, %(at)s, %(code)s, %(reason)s, %(command)s, %(command_id)s, %(job)s, %(position)s,
    %(existing)s
)
ON CONFLICT DO NOTHING

-- name: pause_queue
-- No job of a queue starts in a lane.
INSERT INTO paused_queues (lane, queue, state, since, until, paused_by, reason, log_offset)
VALUES (%(lane)s, %(queue)s, %(state)s, %(at)s, %(until)s, %(by)s, %(reason)s, %(log_offset)s)
ON CONFLICT (lane, queue) DO UPDATE SET
    state = excluded.state, since = excluded.since, until = excluded.until, paused_by = excluded.paused_by,
    reason = excluded.reason, log_offset = excluded.log_offset

-- name: drain_queue
-- None of its jobs runs there any more.
UPDATE paused_queues SET state = 'drained', log_offset = %(log_offset)s
WHERE lane = %(lane)s AND queue = %(queue)s

-- name: resume_queue
-- Its jobs start again.
DELETE FROM paused_queues WHERE lane = %(lane)s AND queue = %(queue)s

-- name: set_queue_limit
-- A queue has a limit from now on, in a lane.
INSERT INTO queue_limits (lane, queue, kind, capacity, interval_s, since, set_by, reason, log_offset)
VALUES (
    %(lane)s, %(queue)s, %(kind)s, %(capacity)s, %(interval_s)s, %(at)s, %(by)s, %(reason)s, %(log_offset)s
)
ON CONFLICT (lane, queue) DO UPDATE SET
    kind = excluded.kind, capacity = excluded.capacity, interval_s = excluded.interval_s, since = excluded.since,
    set_by = excluded.set_by, reason = excluded.reason, log_offset = excluded.log_offset

-- name: clear_queue_limit
-- It has none any more.
DELETE FROM queue_limits WHERE lane = %(lane)s AND queue = %(queue)s

-- name: start_bulk
-- A bulk operation begins; under an id that its lane has forgotten, it begins anew.
INSERT INTO bulk (
    id, lane, state, action, filter, fence, rate, queue, priority, matched, sent, started_by, reason, started_at,
    changed_at, log_offset
)
VALUES (
    %(id)s, %(lane)s, 'running', %(action)s, %(filter)s, %(fence)s, %(rate)s, %(queue)s, %(priority)s, %(matched)s,
    0, %(by)s, %(reason)s, %(at)s, %(at)s, %(log_offset)s
)
ON CONFLICT (id) DO UPDATE SET
    lane = excluded.lane, state = excluded.state, action = excluded.action, filter = excluded.filter,
    fence = excluded.fence, rate = excluded.rate, queue = excluded.queue, priority = excluded.priority,
    matched = excluded.matched, sent = 0, cursor = NULL, started_by = excluded.started_by, reason = excluded.reason,
    started_at = excluded.started_at, changed_at = excluded.changed_at, ended_by = NULL, end_reason = NULL,
    log_offset = excluded.log_offset

-- name: advance_bulk
-- So many of its commands were sent.
UPDATE bulk SET sent = %(sent)s, cursor = %(cursor)s, changed_at = %(at)s, log_offset = %(log_offset)s
WHERE id = %(id)s

-- name: end_bulk
-- It has ended.
UPDATE bulk SET
    state = %(state)s, sent = %(sent)s, changed_at = %(at)s, ended_by = %(by)s, end_reason = %(reason)s,
    log_offset = %(log_offset)s
WHERE id = %(id)s

-- name: park
-- Keep a record that could not be applied, with the reason.
INSERT INTO parked (lane, log_offset, at, code, reason, raw)
VALUES (%(lane)s, %(log_offset)s, to_timestamp(%(log_ms)s / 1000.0), %(code)s, %(reason)s, %(raw)s)
ON CONFLICT DO NOTHING
