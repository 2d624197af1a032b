-- What there is now in some lanes, for metrics. All of it is read from few rows.

-- name: limit
-- The rest of this transaction must not keep events waiting.
SET LOCAL statement_timeout = '2s'

-- name: jobs
-- How many jobs of each queue are in each state, also of queues that are empty by now; first come the states that are
-- not final, and of these the largest numbers.
SELECT queue, state::text, sum(n)::bigint
FROM counts
WHERE lane = ANY (%(lanes)s::smallint[])
GROUP BY queue, state ORDER BY state = ANY (%(states)s::job_state[]) DESC, sum(n) DESC, queue, state

-- name: oldest
-- Since when the job waits that has been Enqueued longest, by queue; the index jobs_by_queue has it first.
SELECT waiting.queue, extract(epoch FROM first.changed_at)::float8
FROM (
    SELECT queue FROM counts
    WHERE lane = ANY (%(lanes)s::smallint[]) AND state = 'Enqueued'
    GROUP BY queue HAVING sum(n) > 0
    ORDER BY sum(n) DESC, queue LIMIT %(queues_max)s
) AS waiting
CROSS JOIN LATERAL (
    SELECT j.changed_at FROM jobs AS j
    WHERE j.state = 'Enqueued' AND j.queue = waiting.queue
    ORDER BY j.changed_at LIMIT 1
) AS first

-- name: workers
-- The workers that run, and their slots.
SELECT count(*), coalesce(sum(slots), 0)::bigint
FROM workers WHERE state = 'running' AND lane = ANY (%(lanes)s::smallint[])

-- name: queue_workers
-- The same by each queue that they serve.
SELECT queue, count(*), sum(slots)::bigint
FROM workers CROSS JOIN LATERAL (SELECT DISTINCT unnest(queues) AS queue) AS served
WHERE state = 'running' AND lane = ANY (%(lanes)s::smallint[])
GROUP BY queue

-- name: paused
-- In how many lanes each queue is paused that is.
SELECT queue, count(*) FROM paused_queues WHERE lane = ANY (%(lanes)s::smallint[]) GROUP BY queue

-- name: batches
-- Of the batches that have not ended, by state: how many, when the first was created, and when one last moved that has
-- been silent longest. The index batches_open has just these.
SELECT state::text, count(*), extract(epoch FROM min(created_at))::float8, extract(epoch FROM min(changed_at))::float8
FROM batches
WHERE state IN ('Awaiting', 'Processing') AND lane = ANY (%(lanes)s::smallint[]) GROUP BY state
