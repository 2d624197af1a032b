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

-- name: jobs
-- Every job of these lanes.
SELECT
    uuid_send(id), lane, state::text, version, attempt, retry, priority, queue, task, created_at, changed_at, due,
    worker, lease, parent::text, continue_on, exception_type,
    substring(sha256(convert_to(exception_message, 'UTF8')) FROM 1 FOR 8),
    substring(sha256(convert_to(spec::text, 'UTF8')) FROM 1 FOR 8),
    parameters::text, log_offset, state_version
FROM jobs
WHERE %(lanes)s::int[] IS NULL OR lane = ANY(%(lanes)s)
ORDER BY id

-- name: history
-- How many events the history of each job has, and the sum of the digests of each with the version of its place.
SELECT
    uuid_send(job), count(*),
    sum(('x' || encode(substring(
        sha256(convert_to((version + place - 1) || event, 'UTF8')) FROM 1 FOR 8
    ), 'hex'))::bit(64)::bigint)
FROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)
GROUP BY job
ORDER BY job

-- name: counts
-- How many jobs are in each state, as it is counted.
SELECT lane, queue, state::text, n FROM counts

-- name: rejected
-- Every rejected command, in the order of the log.
SELECT lane, log_offset, at, code, reason, command, command_id, job::text AS job, position FROM rejected
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

-- name: named_jobs
-- These jobs in full, with what their state's event brought.
SELECT
    j.id::text, j.lane, j.state, j.version, j.attempt, j.retry, j.priority, j.queue, j.task, j.created_at,
    j.changed_at, j.due, j.worker, j.lease, j.parent::text, j.continue_on, j.exception_type, j.exception_message,
    j.spec, coalesce(j.parameters, '{}') AS parameters, j.log_offset, h.events[j.state_version - h.version + 1] AS event
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
