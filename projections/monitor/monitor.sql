-- What monitoring asks. Optional filters are null when not used: connections of the monitor plan every query
-- for its parameters (plan_cache_mode), so what is null costs nothing and does not hide an index.

-- name: job
-- Everything about one job but its history.
SELECT
    j.id::text, j.lane, j.state, j.version, j.attempt, j.retry, j.priority, j.queue, j.task, j.created_at,
    j.changed_at, j.due, j.worker, j.lease, j.parent::text, j.continue_on, j.exception_type, j.exception_message,
    j.spec, coalesce(j.parameters, '{}') AS parameters, p.state AS parent_state, j.log_offset,
    h.events[j.state_version - h.version + 1] AS event
FROM jobs AS j
LEFT JOIN history AS h ON h.job = j.id AND j.state_version BETWEEN h.version AND h.last_version
LEFT JOIN jobs AS p ON p.id = j.parent
WHERE j.id = %(id)s

-- name: state
-- Where a job is.
SELECT state FROM jobs WHERE id = %(id)s

-- name: history
-- The events of a job, newest first.
SELECT event
FROM (SELECT version, events FROM history WHERE job = %(id)s ORDER BY version DESC LIMIT %(limit)s) AS h
CROSS JOIN unnest(h.events) WITH ORDINALITY AS listed (event, place)
ORDER BY h.version DESC, place DESC LIMIT %(limit)s

-- name: events_after
-- The events of a job after a version, oldest first.
SELECT event
FROM (
    SELECT version, events FROM history
    WHERE job = %(id)s AND last_version > %(version)s ORDER BY version LIMIT %(limit)s
) AS h
CROSS JOIN unnest(h.events) WITH ORDINALITY AS listed (event, place)
WHERE h.version + place - 1 > %(version)s
ORDER BY h.version, place LIMIT %(limit)s

-- name: events_with_lines
-- The events of a job from a version on that log lines, oldest first.
SELECT event
FROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)
WHERE job = %(id)s AND last_version >= %(version)s AND version + place - 1 >= %(version)s
    AND split_part(event, ',', 4) = '"job.progressed"' AND position('"lines":[' IN event) > 0
ORDER BY version, place LIMIT %(limit)s

-- name: continuations
-- The jobs that wait, or waited, for this one, alone or among several.
SELECT
    id::text, state, coalesce(continue_on, spec #>> '{parents,on}', 'succeeded') AS continue_on, queue, task, created_at,
    changed_at
FROM (
    (SELECT * FROM jobs WHERE parent = %(id)s ORDER BY changed_at DESC, id DESC LIMIT %(limit)s)
    UNION ALL
    (
        SELECT * FROM jobs AS j
        WHERE j.id IN (SELECT job FROM job_parents WHERE parent = %(id)s) AND j.parent IS DISTINCT FROM %(id)s
        ORDER BY changed_at DESC, id DESC LIMIT %(limit)s
    )
) AS waiting
ORDER BY changed_at DESC, id DESC LIMIT %(limit)s

-- name: snapshot
-- What an elector needs to revive an ended job.
SELECT version, state, attempt, task, queue, created_at, spec, coalesce(parameters, '{}') AS parameters, priority
FROM jobs WHERE id = %(id)s AND spec IS NOT NULL

-- name: chosen
-- The filters of lists; a part of the queries below.
AND (%(queue)s::text IS NULL OR queue = %(queue)s)
AND (%(task)s::text IS NULL OR task = %(task)s)
AND (%(worker)s::text IS NULL OR worker = %(worker)s)
AND (%(parent)s::uuid IS NULL OR parent = %(parent)s)
AND (%(id)s::uuid IS NULL OR id = %(id)s)
AND (NOT %(retrying)s OR retry > 0)
AND (%(created_after)s::timestamptz IS NULL OR created_at >= %(created_after)s)
AND (%(created_before)s::timestamptz IS NULL OR created_at < %(created_before)s)
AND (%(changed_after)s::timestamptz IS NULL OR changed_at >= %(changed_after)s)
AND (%(changed_before)s::timestamptz IS NULL OR changed_at < %(changed_before)s)
AND (%(error)s::text IS NULL OR (exception_type IS NOT NULL
    AND position(lower(%(error)s) IN lower(exception_type || ': ' || exception_message)) > 0))

-- name: described
-- What lists show of the jobs in `page`; a part of the queries below.
SELECT
    j.id::text, j.lane, j.state, j.version, j.attempt, j.retry, j.priority, j.queue, j.task, j.created_at,
    j.changed_at, j.due, j.worker, j.lease, j.parent::text, j.continue_on, j.exception_type, j.exception_message,
    CASE WHEN octet_length(j.spec::text) <= %(text_max)s THEN j.spec END AS spec,
    p.state AS parent_state,
    CASE WHEN NOT h.is_long THEN h.event END AS event,
    CASE WHEN h.is_long THEN (h.event::json #> '{4,reason}')::text END AS reason
FROM page AS j
LEFT JOIN LATERAL (
    SELECT event, octet_length(event) > %(text_max)s AND greatest(
        octet_length((event::json #> '{4,result}')::text), octet_length((event::json #> '{4,exception}')::text), 0
    ) > %(text_max)s AS is_long
    FROM (
        SELECT events[j.state_version - version + 1] AS event
        FROM history WHERE job = j.id AND j.state_version BETWEEN version AND last_version
        OFFSET 0
    ) AS current
) AS h ON true
LEFT JOIN jobs AS p ON p.id = j.parent

-- name: jobs_newest
-- A page of jobs, those that changed last first; each state's page comes from an index, then they are merged.
WITH page AS MATERIALIZED (
    SELECT j.* FROM unnest(%(states)s::job_state[]) AS wanted (state) CROSS JOIN LATERAL (
        SELECT * FROM jobs
        WHERE state = wanted.state
            -- include: chosen
            AND (%(at)s::timestamptz IS NULL OR (changed_at, id) < (%(at)s, %(last)s::uuid))
        ORDER BY changed_at DESC, id DESC LIMIT %(limit)s
    ) AS j
    ORDER BY changed_at DESC, id DESC LIMIT %(limit)s
)
-- include: described
ORDER BY j.changed_at DESC, j.id DESC

-- name: jobs_oldest
-- The same, those that changed first first.
WITH page AS MATERIALIZED (
    SELECT j.* FROM unnest(%(states)s::job_state[]) AS wanted (state) CROSS JOIN LATERAL (
        SELECT * FROM jobs
        WHERE state = wanted.state
            -- include: chosen
            AND (%(at)s::timestamptz IS NULL OR (changed_at, id) > (%(at)s, %(last)s::uuid))
        ORDER BY changed_at, id LIMIT %(limit)s
    ) AS j
    ORDER BY changed_at, id LIMIT %(limit)s
)
-- include: described
ORDER BY j.changed_at, j.id

-- name: jobs_created
-- A page of jobs, those created last first.
WITH page AS MATERIALIZED (
    SELECT * FROM jobs
    WHERE state = ANY (%(states)s::job_state[])
        -- include: chosen
        AND (%(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(last)s::uuid))
    ORDER BY created_at DESC, id DESC LIMIT %(limit)s
)
-- include: described
ORDER BY j.created_at DESC, j.id DESC

-- name: jobs_due
-- A page of scheduled jobs, those due first first.
WITH page AS MATERIALIZED (
    SELECT * FROM jobs
    WHERE state = 'Scheduled' AND due IS NOT NULL -- null when what scheduled the job was never seen
        -- include: chosen
        AND (%(at)s::timestamptz IS NULL OR (due, id) > (%(at)s, %(last)s::uuid))
    ORDER BY due, id LIMIT %(limit)s
)
-- include: described
ORDER BY j.due, j.id

-- name: runs_of
-- The jobs of a recurring job, as its index has them; a part of the queries below.
FROM jobs
WHERE left(parameters ->> 'RecurringJobId', 200) = %(recurring)s AND parameters ->> 'Time' IS NOT NULL

-- name: recurring_runs
-- A page of the jobs of a recurring job, the latest occurrences first, with when each was last started.
WITH page AS MATERIALIZED (
    SELECT
        id, state, attempt, created_at, changed_at, state_version, exception_type, exception_message,
        left(parameters ->> 'Time', 40) COLLATE "C" AS occurrence, left(parameters ->> 'Cause', 40) AS cause
    -- include: runs_of
        AND (%(before)s::text IS NULL OR left(parameters ->> 'Time', 40) COLLATE "C" < %(before)s)
        AND (%(last_id)s::uuid IS NULL
            OR (left(parameters ->> 'Time', 40) COLLATE "C", id) < (%(last_occurrence)s, %(last_id)s::uuid))
    ORDER BY left(parameters ->> 'Time', 40) COLLATE "C" DESC, id DESC LIMIT %(limit)s
)
SELECT
    j.id::text, j.state, j.attempt, j.created_at, j.changed_at, j.occurrence, j.cause, j.exception_type,
    j.exception_message, started.at::timestamptz AS started_at,
    (h.events[j.state_version - h.version + 1]::json #>> '{4,duration_ms}')::float AS duration_ms
FROM page AS j
LEFT JOIN history AS h ON h.job = j.id AND j.state_version BETWEEN h.version AND h.last_version
LEFT JOIN LATERAL (
    SELECT event::json ->> 2 AS at
    FROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)
    WHERE job = j.id AND event::json ->> 3 = 'job.processing'
    ORDER BY version DESC, place DESC LIMIT 1
) AS started ON true
ORDER BY j.occurrence DESC, j.id DESC

-- name: recurring_counts
-- How many of the latest jobs of a recurring job are in each state.
SELECT state, count(*) AS n
FROM (
    SELECT state
    -- include: runs_of
    ORDER BY left(parameters ->> 'Time', 40) COLLATE "C" DESC LIMIT %(limit)s
) AS latest
GROUP BY state ORDER BY state

-- name: states
-- Where these jobs are.
SELECT id::text, state FROM jobs WHERE id = ANY (%(ids)s::uuid[])

-- name: counts
-- How many jobs are in each state now, by queue.
SELECT queue, state, sum(n)::bigint AS n FROM counts GROUP BY queue, state HAVING sum(n) <> 0 ORDER BY queue, state

-- name: queues
-- The queues that have jobs or workers, or are paused or limited, with the five jobs that wait longest.
WITH named AS (
    SELECT queue FROM counts GROUP BY queue HAVING sum(n) > 0
    UNION
    SELECT unnest(queues) FROM workers WHERE state = 'running'
    UNION
    SELECT queue FROM paused_queues
    UNION
    SELECT queue FROM queue_limits
)
SELECT
    named.queue AS name,
    (SELECT count(*) FROM workers WHERE workers.state = 'running' AND named.queue = ANY (workers.queues)) AS workers,
    waiting.first_jobs, pauses.pause, limits."limit"
FROM named
LEFT JOIN (
    SELECT DISTINCT ON (queue) queue, json_build_object(
        'kind', kind, 'capacity', capacity, 'interval_s', interval_s, 'since', since, 'set_by', set_by, 'reason', reason
    ) AS "limit"
    FROM queue_limits ORDER BY queue, since DESC, lane
) AS limits ON limits.queue = named.queue
LEFT JOIN (
    SELECT queue, json_build_object(
        'state', (array_agg(state ORDER BY array_position(ARRAY['draining', 'paused', 'drained'], state)))[1],
        'lanes', count(*), 'since', min(since),
        'until', (array_agg(until ORDER BY since, lane))[1],
        'paused_by', (array_agg(paused_by ORDER BY since, lane))[1],
        'reason', (array_agg(reason ORDER BY since, lane))[1]
    ) AS pause
    FROM paused_queues GROUP BY queue
) AS pauses ON pauses.queue = named.queue
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(json_build_object('id', id, 'task', task, 'priority', priority, 'since', changed_at)
        ORDER BY changed_at, id), '[]') AS first_jobs
    FROM (
        SELECT id, task, priority, changed_at FROM jobs
        WHERE jobs.queue = named.queue AND jobs.state = 'Enqueued'
        ORDER BY changed_at, id LIMIT 5
    ) AS oldest
) AS waiting
ORDER BY named.queue

-- name: workers
-- The workers that run, and those that were heard of since a given time, with how many jobs they run.
SELECT w.id AS name, w.state, w.slots, w.queues, w.tasks, w.host, w.pid, w.started_at, w.heartbeat,
    coalesce(running.n, 0) AS processing
FROM workers AS w
LEFT JOIN (
    SELECT worker, count(*) AS n FROM jobs WHERE state = 'Processing' GROUP BY worker
) AS running ON running.worker = w.id
WHERE w.state IN ('running', 'quiet', 'stopping') OR w.heartbeat >= %(since)s
ORDER BY w.state NOT IN ('running', 'quiet', 'stopping'), w.id

-- name: batch_columns
-- What is shown of a batch; a part of the queries below.
id::text, lane, version, state, description, reason, created_at, changed_at, total, created, succeeded, failed, deleted,
cancelled, batch::text, parent::text, continue_on, log_offset

-- name: batch
-- One batch.
SELECT
    -- include: batch_columns
FROM batches WHERE id = %(id)s

-- name: batches
-- A page of batches, those created last first.
SELECT
    -- include: batch_columns
FROM batches
WHERE state = ANY (%(states)s::job_state[])
    AND (%(batch)s::uuid IS NULL OR batch = %(batch)s)
    AND (%(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(last)s::uuid))
ORDER BY created_at DESC, id DESC LIMIT %(limit)s

-- name: batch_jobs
-- A page of the jobs of a batch, in the order of their ids.
WITH page AS MATERIALIZED (
    SELECT j.* FROM (
        SELECT DISTINCT job FROM batch_jobs
        WHERE batch = %(batch)s AND (%(last)s::uuid IS NULL OR job > %(last)s)
        ORDER BY job
    ) AS member
    JOIN jobs AS j ON j.id = member.job
    WHERE j.state = ANY (%(states)s::job_state[])
    ORDER BY member.job LIMIT %(limit)s
)
-- include: described
ORDER BY j.id

-- name: limited
-- The jobs with limits that run, and those that became ready first and of which an event tells more since then.
SELECT j.id::text, j.state, j.changed_at, j.spec -> 'limits' AS limits, NULL AS event
FROM jobs AS j
WHERE j.state = 'Processing' AND j.spec -> 'limits' IS NOT NULL
UNION ALL
SELECT j.id::text, j.state, j.changed_at, j.spec -> 'limits' AS limits, h.events[j.version - h.version + 1] AS event
FROM (SELECT * FROM jobs WHERE state = 'Enqueued' ORDER BY changed_at LIMIT %(most)s) AS j
JOIN history AS h ON h.job = j.id AND j.version BETWEEN h.version AND h.last_version
WHERE j.version > j.state_version AND j.spec -> 'limits' IS NOT NULL
ORDER BY changed_at, id

-- name: holders
-- The jobs that run with one of these limits, those that began first.
SELECT j.id::text, one ->> 'kind' AS kind, one ->> 'key' AS key
FROM jobs AS j
CROSS JOIN LATERAL json_array_elements(j.spec -> 'limits') AS listed (one)
JOIN unnest(%(kinds)s::text[], %(keys)s::text[]) AS asked (kind, key)
    ON asked.kind = one ->> 'kind' AND asked.key = one ->> 'key'
WHERE j.state = 'Processing' AND j.spec -> 'limits' IS NOT NULL
ORDER BY j.changed_at, j.id

-- name: queue_limit
-- The limit of a queue as it was set last, and how many of its jobs run.
SELECT kind, capacity, interval_s, since, set_by, reason, (
    SELECT coalesce(sum(n), 0)::bigint FROM counts WHERE queue = %(queue)s AND state = 'Processing'
) AS running
FROM queue_limits WHERE queue = %(queue)s ORDER BY since DESC, lane LIMIT 1

-- name: starts
-- How many jobs of a queue have started since an instant, at most so many.
SELECT count(*) AS n
FROM (
    SELECT 1
    FROM jobs AS j
    JOIN history AS h ON h.job = j.id
    CROSS JOIN unnest(h.events) AS listed (event)
    WHERE j.queue = %(queue)s AND j.state = ANY (enum_range(NULL::job_state)) AND j.changed_at >= %(since)s
        AND split_part(event, ',', 4) = '"job.processing"'
        AND trim('"' FROM split_part(event, ',', 3))::timestamptz >= %(since)s
    LIMIT %(most)s
) AS started

-- name: totals
-- How many jobs ever ended in each way.
SELECT state, sum(n)::bigint AS n FROM outcomes WHERE period = 'ever' GROUP BY state

-- name: sizes
-- How many jobs wait for a retry, and how many workers run.
SELECT
    (SELECT count(*) FROM jobs WHERE state = 'Scheduled' AND retry > 0) AS retries,
    (SELECT count(*) FROM workers WHERE state = 'running') AS workers

-- name: by_day
-- How many jobs ended in each of the last days of UTC, this one included.
SELECT day.since,
    coalesce(sum(n) FILTER (WHERE state = 'Succeeded'), 0)::bigint AS succeeded,
    coalesce(sum(n) FILTER (WHERE state = 'Failed'), 0)::bigint AS failed,
    coalesce(sum(n) FILTER (WHERE state = 'Deleted'), 0)::bigint AS deleted
FROM generate_series(
    date_trunc('day', %(now)s::timestamptz) - (%(buckets)s - 1) * interval '1 day',
    date_trunc('day', %(now)s::timestamptz), '1 day'
) AS day (since)
LEFT JOIN outcomes ON outcomes.period = 'day' AND outcomes.since = day.since
GROUP BY day.since ORDER BY day.since

-- name: by_hour
-- How many jobs ended in each of the last hours, this one included.
SELECT hour.since,
    coalesce(sum(n) FILTER (WHERE state = 'Succeeded'), 0)::bigint AS succeeded,
    coalesce(sum(n) FILTER (WHERE state = 'Failed'), 0)::bigint AS failed,
    coalesce(sum(n) FILTER (WHERE state = 'Deleted'), 0)::bigint AS deleted
FROM generate_series(
    date_trunc('hour', %(now)s::timestamptz) - (%(buckets)s - 1) * interval '1 hour',
    date_trunc('hour', %(now)s::timestamptz), '1 hour'
) AS hour (since)
LEFT JOIN outcomes ON outcomes.period = 'hour' AND outcomes.since = hour.since
GROUP BY hour.since ORDER BY hour.since

-- name: rejected
-- A page of the commands that could not be done, the last first.
SELECT lane, log_offset, at, code, reason, command, command_id, job::text AS job_id, position,
    existing::text AS existing
FROM rejected
WHERE (%(job)s::uuid IS NULL OR job = %(job)s)
    AND (%(at)s::timestamptz IS NULL OR (at, lane, log_offset) < (%(at)s, %(lane)s::smallint, %(log_offset)s::bigint))
ORDER BY at DESC, lane DESC, log_offset DESC LIMIT %(limit)s

-- name: existing
-- The job that is there in place of one that was not created.
SELECT existing::text AS existing
FROM rejected
WHERE job = %(job)s AND existing IS NOT NULL AND (%(code)s::text IS NULL OR code = %(code)s)
ORDER BY at DESC, lane DESC, log_offset DESC LIMIT 1

-- name: parked
-- A page of the records that could not be applied, the last first.
SELECT lane, log_offset, at, code, reason, raw
FROM parked
WHERE (%(at)s::timestamptz IS NULL OR (at, lane, log_offset) < (%(at)s, %(lane)s::smallint, %(log_offset)s::bigint))
ORDER BY at DESC, lane DESC, log_offset DESC LIMIT %(limit)s

-- name: parked_codes
-- How many records are parked for each reason, and where the last of them is.
SELECT DISTINCT ON (code) code, count(*) OVER (PARTITION BY code) AS records, lane, log_offset
FROM parked ORDER BY code, at DESC, lane DESC, log_offset DESC

-- name: live_jobs
-- How many jobs that have not ended each queue has in each lane.
SELECT queue, lane, sum(n)::bigint AS jobs FROM counts
WHERE state IN ('Awaiting', 'Scheduled', 'Enqueued', 'Processing')
GROUP BY queue, lane HAVING sum(n) > 0 ORDER BY queue, lane

-- name: offsets
-- How far each lane was applied; `late_s` is for how long the tables have not been current.
SELECT lane, next_offset, log_time, current_at,
    CASE WHEN current_at IS NOT NULL THEN greatest(extract(epoch FROM now() - current_at), 0)::float END AS late_s
FROM offsets ORDER BY lane

-- name: matched
-- How many jobs a filter finds, so far as the tables are.
SELECT count(*) AS jobs FROM jobs
WHERE state = ANY (%(states)s::job_state[])
    -- include: chosen

-- name: bulk
-- Bulk operations, the last started first; all, one of them, or those in a state.
SELECT
    b.id::text, b.lane, b.state, b.action, b.filter, b.fence, b.rate, b.queue, b.priority, b.matched, b.sent,
    (
        SELECT count(DISTINCT job) FROM rejected
        WHERE left(command_id, 100) COLLATE "C" >= 'bulk/' || b.id || '/'
            AND left(command_id, 100) COLLATE "C" < 'bulk/' || b.id || '0'
    ) AS refused,
    b.cursor::text, b.started_by, b.reason, b.started_at, b.changed_at, b.ended_by, b.end_reason,
    extract(epoch FROM now() - o.current_at)::float8 AS late_s
FROM bulk AS b LEFT JOIN offsets AS o ON o.lane = b.lane
WHERE (%(id)s::uuid IS NULL OR b.id = %(id)s) AND (%(state)s::text IS NULL OR b.state = %(state)s)
ORDER BY b.started_at DESC, b.id LIMIT %(limit)s

-- name: bulk_page
-- The next jobs of a bulk operation, in the order of their ids: those that its filter finds, and that have had no
-- event since it was asked for.
SELECT
    id::text, state, version, attempt, task, queue, created_at, priority, coalesce(parameters, '{}') AS parameters,
    CASE WHEN state = ANY (%(final)s::job_state[]) THEN spec END AS spec
FROM jobs
WHERE state = ANY (%(states)s::job_state[])
    -- include: chosen
    AND log_offset < (%(fence)s::bigint[])[lane + 1]
    AND (%(last)s::uuid IS NULL OR jobs.id > %(last)s)
ORDER BY id LIMIT %(limit)s

-- name: pauses
-- The lanes in which a queue is paused.
SELECT lane, state, since, until, paused_by, reason FROM paused_queues WHERE queue = %(queue)s ORDER BY lane
