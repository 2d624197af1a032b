-- Rows that leave the tables, and what is recorded of it.

-- name: begin
-- Up to which time the lanes' part of the tables holds the log, and where each lane is. A lane of which nothing was
-- applied has no rows.
SELECT
    least(min(current_at), now()), array_agg(lane ORDER BY lane), array_agg(next_offset ORDER BY lane),
    min(tableoid::bigint)
FROM offsets WHERE lane = ANY (%(lanes)s::smallint[])

-- name: age
-- How long ago the last complete pass of these lanes was, in seconds; null if one of them had none.
SELECT CASE WHEN count(e.lane) = count(*) THEN extract(epoch FROM now() - min(e.ran_at))::float8 END
FROM unnest(%(lanes)s::smallint[]) AS wanted (lane) LEFT JOIN expiry AS e USING (lane)

-- name: tasks
-- The tasks of which there are jobs in this state, by looking up the next one behind each in the index jobs_by_task.
WITH RECURSIVE found (task) AS (
    (SELECT task FROM jobs WHERE state = %(state)s::job_state ORDER BY task LIMIT 1)
    UNION ALL
    SELECT (
        SELECT j.task FROM jobs AS j WHERE j.state = %(state)s::job_state AND j.task > found.task
        ORDER BY j.task LIMIT 1
    )
    FROM found WHERE found.task IS NOT NULL
)
SELECT task FROM found WHERE task IS NOT NULL

-- name: limit
-- Events wait while a batch of rows is deleted: it must be short.
SELECT set_config('statement_timeout', '3s', true)

-- name: lock
-- Nobody else writes these lanes until the end of the transaction, nor replaces the tables; no rows if somebody has
-- replaced them. Always the first statement.
SELECT lane FROM offsets
WHERE lane = ANY (%(lanes)s::smallint[]) AND tableoid::bigint = %(tables)s ORDER BY lane FOR UPDATE

-- name: has_expired
-- Whether a row of `jobs` AS j has expired, if it is of the state and the task; a part of the statements below.
j.state = %(state)s::job_state AND j.task = %(task)s AND j.changed_at < %(latest)s::timestamptz
AND j.lane = ANY (%(lanes)s::smallint[])
AND j.changed_at < coalesce(
    (
        SELECT own.before FROM unnest(%(queues)s::text[], %(befores)s::timestamptz[]) AS own (queue, before)
        WHERE own.queue = j.queue
    ),
    %(otherwise)s::timestamptz
)

-- name: expire
-- Delete the next rows that have expired, oldest first, with their history; count them no longer; record them.
WITH chosen AS MATERIALIZED (
    SELECT j.id FROM jobs AS j
    WHERE
    -- include: has_expired
    AND j.changed_at >= %(from)s::timestamptz
    ORDER BY j.changed_at LIMIT %(limit)s
), gone AS (
    DELETE FROM jobs WHERE id = ANY (ARRAY(SELECT id FROM chosen)) RETURNING lane, queue, task, state, changed_at
), forgotten AS (
    DELETE FROM history WHERE job = ANY (ARRAY(SELECT id FROM chosen))
), unreturned AS (
    DELETE FROM returned WHERE job = ANY (ARRAY(SELECT id FROM chosen))
), unlisted AS (
    DELETE FROM batch_jobs WHERE job = ANY (ARRAY(SELECT id FROM chosen))
), unparented AS (
    DELETE FROM job_parents WHERE job = ANY (ARRAY(SELECT id FROM chosen))
), kinds AS (
    SELECT lane, queue, task, state, count(*) AS n, max(changed_at) AS through
    FROM gone GROUP BY lane, queue, task, state
), counted AS (
    INSERT INTO counts (lane, queue, state, n)
    SELECT lane, queue, state, -sum(n) FROM kinds GROUP BY lane, queue, state
    ON CONFLICT (lane, queue, state) DO UPDATE SET n = counts.n + excluded.n
), recorded AS (
    INSERT INTO expired (lane, queue, task, state, through, n)
    SELECT lane, queue, task, state, through, n FROM kinds
    ON CONFLICT (lane, queue, task, state) DO UPDATE
    SET through = greatest(expired.through, excluded.through), n = expired.n + excluded.n
)
SELECT coalesce(sum(n), 0)::bigint, max(through) FROM kinds

-- name: expire_batches
-- Delete the next batches that ended in this state before an instant, and record them. What is told of one later makes
-- its row anew, as each event says all of a batch.
WITH gone AS (
    DELETE FROM batches WHERE id = ANY (ARRAY(
        SELECT id FROM batches
        WHERE state = %(state)s::job_state AND changed_at < %(before)s::timestamptz
            AND lane = ANY (%(lanes)s::smallint[])
        ORDER BY changed_at LIMIT %(limit)s
    )) RETURNING lane, state, changed_at
), recorded AS (
    INSERT INTO expired_batches (lane, state, through, n)
    SELECT lane, state, max(changed_at), count(*) FROM gone GROUP BY lane, state
    ON CONFLICT (lane, state) DO UPDATE
    SET through = greatest(expired_batches.through, excluded.through), n = expired_batches.n + excluded.n
)
SELECT count(*) FROM gone

-- name: expire_outcomes
-- Delete the next counts of ends that are too old.
WITH chosen AS MATERIALIZED (
    SELECT lane, since, state FROM outcomes
    WHERE period = %(period)s::period AND since < %(before)s::timestamptz AND lane = ANY (%(lanes)s::smallint[])
    LIMIT %(limit)s
), gone AS (
    DELETE FROM outcomes AS o USING chosen AS c
    WHERE o.period = %(period)s::period AND o.since = c.since AND o.lane = c.lane AND o.state = c.state
    RETURNING o.lane
), recorded AS (
    INSERT INTO expired_outcomes (lane, period, before)
    SELECT DISTINCT lane, %(period)s::period, %(before)s::timestamptz FROM gone
    ON CONFLICT (lane, period) DO UPDATE SET before = greatest(expired_outcomes.before, excluded.before)
)
SELECT count(*) FROM gone

-- name: passed
-- Note that a pass is complete.
WITH noted AS (INSERT INTO expiry (lane, ran_at, until, next_offset, rules)
SELECT lane, now(), %(until)s, next_offset, %(rules)s
FROM unnest(%(lanes)s::smallint[], %(offsets)s::bigint[]) AS begun (lane, next_offset)
ON CONFLICT (lane) DO UPDATE SET
    ran_at = excluded.ran_at, until = excluded.until, next_offset = excluded.next_offset, rules = excluded.rules
RETURNING lane)
SELECT count(*) FROM noted

-- name: plan
-- What would go, by queue.
SELECT j.queue, count(*), min(j.changed_at), max(j.changed_at) FROM jobs AS j
WHERE
-- include: has_expired
GROUP BY j.queue ORDER BY j.queue

-- name: passes
-- The last complete passes: which lanes were gone through by the same rules, up to the same time.
SELECT until, rules, array_agg(lane ORDER BY lane) FROM expiry GROUP BY until, rules ORDER BY until

-- name: overdue
-- Rows that had to go with the last complete pass of their lane, which were there when it began.
SELECT j.id::text, j.lane, j.queue, j.changed_at FROM jobs AS j JOIN expiry AS e ON e.lane = j.lane
WHERE
-- include: has_expired
AND j.log_offset < e.next_offset
ORDER BY j.changed_at, j.id

-- name: overdue_batches
-- The same of batches that ended in this state.
SELECT b.id::text, b.lane, b.changed_at FROM batches AS b JOIN expiry AS e ON e.lane = b.lane
WHERE b.state = %(state)s::job_state AND b.changed_at < %(before)s::timestamptz
    AND b.lane = ANY (%(lanes)s::smallint[]) AND b.log_offset < e.next_offset
ORDER BY b.changed_at, b.id
