-- What the tables say, in the words of a fold of the log.

-- name: jobs
-- Every job, with what its state's event brought.
SELECT
    j.id::text, j.lane, j.state, j.version, j.attempt, j.retry, j.priority, j.queue, j.task, j.created_at,
    j.changed_at, j.due, j.worker, j.lease, j.parent::text, j.continue_on, j.exception_type, j.exception_message,
    j.spec, coalesce(j.parameters, '{}') AS parameters, j.log_offset, h.events[j.state_version - h.version + 1] AS event
FROM jobs AS j
LEFT JOIN history AS h
    ON h.job = j.id AND j.state_version BETWEEN h.version AND h.last_version

-- name: history
-- Every event of every job, each job's in the order of versions.
SELECT job::text, version + place - 1, event
FROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)
ORDER BY job, version, place

-- name: recount
-- The counters beside a recount of the jobs, where they differ.
WITH recounted AS (SELECT lane, queue, state, count(*) AS n FROM jobs GROUP BY lane, queue, state)
SELECT lane, queue, state, coalesce(counts.n, 0) AS counted, coalesce(recounted.n, 0) AS there
FROM counts FULL JOIN recounted USING (lane, queue, state)
WHERE coalesce(counts.n, 0) <> coalesce(recounted.n, 0)

-- name: outcomes
-- How often jobs ended, in every bucket.
SELECT lane, period::text, since, state, n FROM outcomes

-- name: workers
-- Every worker, with the place of its last event.
SELECT id, lane, log_offset, state, queues, tasks, slots, host, pid, started_at, heartbeat FROM workers

-- name: refused
-- The records that could not be applied though they can be read: they are in the log, and not in the tables.
SELECT lane, log_offset FROM parked WHERE code IN ('refused', 'internal_error')
