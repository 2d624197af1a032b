-- What lanes ask about jobs that they have forgotten.

-- name: found
-- Where these jobs are, and with which event they came there; nothing of a job whose lane has not been applied up to
-- its question: other tables may have been put in the place of those that were.
SELECT sought.place::integer, jobs.state::text, history.events[jobs.state_version - history.version + 1] AS event
FROM unnest(
    %(jobs)s::uuid[], %(lanes)s::smallint[], %(offsets)s::bigint[]
) WITH ORDINALITY AS sought (job, lane, log_offset, place)
JOIN offsets ON offsets.lane = sought.lane AND offsets.next_offset > sought.log_offset
LEFT JOIN jobs ON jobs.id = sought.job
LEFT JOIN history ON history.job = jobs.id AND jobs.state_version BETWEEN history.version AND history.last_version
