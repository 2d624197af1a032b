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
-- How many events the history of each job has, and the sum of their digests.
SELECT
    uuid_send(job), count(*),
    sum(('x' || encode(substring(sha256(convert_to(event, 'UTF8')) FROM 1 FOR 8), 'hex'))::bit(64)::bigint)
FROM history CROSS JOIN unnest(events) AS listed (event)
GROUP BY job
ORDER BY job

-- name: misplaced
-- Rows of the history whose events do not have the versions of their places.
SELECT job::text, version, last_version, cardinality(events) FROM history
WHERE cardinality(events) <> last_version - version + 1

-- name: recount
-- The counters beside a recount of the jobs, where they differ.
WITH recounted AS (SELECT lane, queue, state, count(*) AS n FROM jobs GROUP BY lane, queue, state)
SELECT lane, queue, state::text, coalesce(counts.n, 0) AS counted, coalesce(recounted.n, 0) AS there
FROM counts FULL JOIN recounted USING (lane, queue, state)
WHERE coalesce(counts.n, 0) <> coalesce(recounted.n, 0)
ORDER BY lane, queue, state

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
