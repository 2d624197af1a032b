-- The tables in the order of ids, with digests in the place of what is long: SHA-256, the first eight bytes.

-- name: snapshot
-- The name under which other connections see what this transaction sees.
SELECT pg_export_snapshot()

-- name: offsets
-- How far the tables are in each lane.
SELECT lane, next_offset FROM offsets

-- name: refused
-- The records that could not be applied though they can be read: they are in the log, and not in the tables.
SELECT lane, log_offset FROM parked WHERE code IN ('refused', 'internal_error')

-- name: digest
-- The first eight bytes of a hash, as a number; a part of the statements below.
('x' || encode(substring(hash FROM 1 FOR 8), 'hex'))::bit(64)::bigint

-- name: events
-- How many events there are; more, if a row does not end with the version that it says; a part of the statements below.
count(*) + count(*) FILTER (WHERE place = 1) - count(*) FILTER (WHERE place = last_version - version + 1)
    + count(*) FILTER (WHERE place > last_version - version + 1)

-- name: elsewhere
-- Jobs whose rows are compared by themselves: those that may be gone, and those that came back after they had gone; a
-- part of the statements below. There are none, or few: the pass of expiry goes through them.
SELECT j.id FROM expired AS e
JOIN jobs AS j ON (j.lane, j.queue, j.task, j.state) = (e.lane, e.queue, e.task, e.state) AND j.changed_at <= e.through
UNION
SELECT job FROM returned

-- name: row_hashes
-- Of each lane: how many jobs there are, and the sum of the digests of their rows, without parameters. The order of
-- columns is that of row_hash.row_text.
SELECT lane, count(*), sum(
    -- include: digest
)
FROM jobs CROSS JOIN LATERAL sha256(convert_to(concat_ws(
    chr(31), encode(uuid_send(id), 'hex'), lane, state, version, attempt, retry, priority, queue, task, log_offset,
    (extract(epoch FROM created_at) * 1000000)::bigint, (extract(epoch FROM changed_at) * 1000000)::bigint,
    coalesce((extract(epoch FROM due) * 1000000)::bigint::text, chr(30)), coalesce(state_version::text, chr(30)),
    coalesce(lease::text, chr(30)), coalesce(worker, chr(30)), coalesce(parent::text, chr(30)),
    coalesce(continue_on, chr(30)), coalesce(exception_type, chr(30)),
    coalesce(encode(substring(sha256(convert_to(exception_message, 'UTF8')) FROM 1 FOR 8), 'hex'), chr(30)),
    coalesce(encode(substring(sha256(convert_to(spec::text, 'UTF8')) FROM 1 FOR 8), 'hex'), chr(30))
), 'UTF8')) AS hash
WHERE NOT EXISTS (SELECT FROM (
    -- include: elsewhere
) AS apart WHERE apart.id = jobs.id)
GROUP BY lane

-- name: history_hashes
-- Of each lane that the ids of jobs name: how many events the history has, and the sum of their digests, each with
-- the version of its place.
SELECT (get_byte(uuid_send(job), 6) & 15) << 8 | get_byte(uuid_send(job), 7) AS home,
    -- include: events
    , sum(
    -- include: digest
)
FROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)
CROSS JOIN LATERAL sha256(convert_to((version + place - 1) || event, 'UTF8')) AS hash
WHERE NOT EXISTS (SELECT FROM (
    -- include: elsewhere
) AS apart WHERE apart.id = history.job)
GROUP BY home

-- name: parameters
-- Every job that has parameters.
SELECT uuid_send(id), lane, parameters::text FROM jobs
WHERE parameters IS NOT NULL AND NOT EXISTS (SELECT FROM (
    -- include: elsewhere
) AS apart WHERE apart.id = jobs.id)
ORDER BY id

-- name: jobs
-- Every job of these lanes.
SELECT
    uuid_send(id), lane, state::text, version, attempt, retry, priority, queue, task, created_at, changed_at, due,
    worker, lease, parent::text, continue_on, exception_type,
    substring(sha256(convert_to(exception_message, 'UTF8')) FROM 1 FOR 8),
    substring(sha256(convert_to(spec::text, 'UTF8')) FROM 1 FOR 8),
    parameters::text, log_offset, state_version
FROM jobs
WHERE lane = ANY(%(lanes)s::int[])
ORDER BY id

-- name: history
-- How many events the history of each job has whose id names one of these lanes, and the sum of their digests.
SELECT
    uuid_send(job),
    -- include: events
    , sum(
    -- include: digest
)
FROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)
CROSS JOIN LATERAL sha256(convert_to((version + place - 1) || event, 'UTF8')) AS hash
WHERE (get_byte(uuid_send(job), 6) & 15) << 8 | get_byte(uuid_send(job), 7) = ANY(%(lanes)s::int[])
GROUP BY job
ORDER BY job

-- name: expired
-- Rows of which jobs are gone, since they had expired.
SELECT lane, queue, task, state::text, through, n FROM expired

-- name: returned
-- Jobs that came back after they had gone, from which version on.
SELECT uuid_send(job), version FROM returned ORDER BY job

-- name: left_jobs
-- Rows that may be gone, and are there.
SELECT
    uuid_send(id), lane, state::text, version, attempt, retry, priority, queue, task, created_at, changed_at, due,
    worker, lease, parent::text, continue_on, exception_type,
    substring(sha256(convert_to(exception_message, 'UTF8')) FROM 1 FOR 8),
    substring(sha256(convert_to(spec::text, 'UTF8')) FROM 1 FOR 8),
    parameters::text, log_offset, state_version
FROM jobs
WHERE id IN (
    -- include: elsewhere
)
ORDER BY id

-- name: left_history
-- The history of jobs whose rows may be gone, and are there.
SELECT
    uuid_send(job),
    -- include: events
    , sum(
    -- include: digest
)
FROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)
CROSS JOIN LATERAL sha256(convert_to((version + place - 1) || event, 'UTF8')) AS hash
WHERE job IN (
    -- include: elsewhere
)
GROUP BY job
ORDER BY job

-- name: expired_batches
-- What is gone of batches.
SELECT lane, state::text, through, n FROM expired_batches

-- name: expired_outcomes
-- Up to when the counts of ends are gone.
SELECT lane, period::text, before FROM expired_outcomes

-- name: counts
-- How many jobs are in each state, as it is counted.
SELECT lane, queue, state::text, n FROM counts

-- name: rejected
-- Every rejected command, in the order of the log.
SELECT lane, log_offset, at, code, reason, command, command_id, job::text AS job, position, existing::text AS existing
FROM rejected
WHERE %(lanes)s::int[] IS NULL OR lane = ANY(%(lanes)s)
ORDER BY lane, log_offset

-- name: parked
-- Every parked record, in the order of the log.
SELECT
    lane, log_offset, at, code, reason, encode(substring(sha256(raw) FROM 1 FOR 8), 'hex') AS raw
FROM parked
WHERE %(lanes)s::int[] IS NULL OR lane = ANY(%(lanes)s)
ORDER BY lane, log_offset

-- name: outcomes
-- How often jobs ended, in every bucket.
SELECT lane, period::text, since, state::text, n FROM outcomes

-- name: workers
-- Every worker, with the place of its last event.
SELECT id, lane, log_offset, state, queues, tasks, slots, host, pid, started_at, heartbeat FROM workers

-- name: batches
-- Every batch; the order of columns is that of rows.batch_row.
SELECT
    id::text, created_at, changed_at, log_offset, total, created, succeeded, failed, deleted, batch::text,
    parent::text, version, state::text, lane, cancelled, continue_on, description, reason
FROM batches

-- name: members
-- How many jobs each batch has, and the sums of the offsets of their first events, and of the ends of their ids.
SELECT
    batch::text, count(*), sum(log_offset)::bigint, sum(('x' || right(job::text, 8))::bit(32)::bigint)::bigint
FROM batch_jobs GROUP BY batch

-- name: parents
-- For how many parents the jobs of each lane wait that wait for several, and the sums of what tells these apart.
SELECT
    lane, count(*), sum(log_offset)::bigint,
    sum(('x' || right(parent::text, 8))::bit(32)::bigint)::bigint,
    sum(('x' || right(job::text, 8))::bit(32)::bigint)::bigint
FROM job_parents GROUP BY lane

-- name: named_jobs
-- These jobs in full, with what their state's event brought.
SELECT
    j.id::text, j.lane, j.state, j.version, j.attempt, j.retry, j.priority, j.queue, j.task, j.created_at,
    j.changed_at, j.due, j.worker, j.lease, j.parent::text, j.continue_on, j.exception_type, j.exception_message,
    j.spec, coalesce(j.parameters, '{}') AS parameters, j.log_offset, j.state_version, h.events[j.state_version - h.version + 1] AS event
FROM jobs AS j
LEFT JOIN history AS h
    ON h.job = j.id AND j.state_version BETWEEN h.version AND h.last_version
WHERE j.id = ANY(%(jobs)s::uuid[])

-- name: named_history
-- Every event of these jobs, each job's in the order of versions.
SELECT job::text, version + place - 1, event
FROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)
WHERE job = ANY(%(jobs)s::uuid[])
ORDER BY job, version, place

-- name: paused_queues
-- Every paused queue, in each of its lanes.
SELECT
    'paused_queues/' || lane || '/' || queue AS key, lane, log_offset, queue, state, since, until, paused_by, reason
FROM paused_queues

-- name: queue_limits
-- Every limit of a queue, in each of its lanes.
SELECT
    'queue_limits/' || lane || '/' || queue AS key, lane, log_offset, queue, kind, capacity, interval_s, since, set_by,
    reason
FROM queue_limits

-- name: bulk
-- Every bulk operation.
SELECT
    'bulk/' || id AS key, lane, log_offset, id::text, state, action, filter::text, fence, rate, queue, priority, matched,
    sent, cursor::text, started_by, reason, started_at, changed_at, ended_by, end_reason
FROM bulk
