-- The statements of an outbox's relay and operators; the connection's search_path names the schema.

-- name: identity
-- Who this outbox is.
SELECT id::text FROM outbox_identity

-- name: lock
-- Become the one relay of this outbox, if there is none; until the connection ends.
SELECT pg_try_advisory_lock(hashtextextended('joblog outbox relay ' || id::text, 0)) FROM outbox_identity

-- name: waiting
-- The rows to relay next, in the order of their ids: so many, and not much more than so many bytes.
WITH next AS (
    SELECT id, lanes, lane, key, value, created_at FROM outbox WHERE error IS NULL ORDER BY id LIMIT %(limit)s
), measured AS (
    SELECT *, sum(length(value)) OVER (ORDER BY id) - length(value) AS bytes_before FROM next
)
SELECT id, lanes, lane, key, value, extract(epoch FROM created_at)::float8
FROM measured
WHERE bytes_before < %(bytes)s
ORDER BY id

-- name: named
-- Those of these rows that are there and wait.
SELECT id, lanes, lane, key, value, extract(epoch FROM created_at)::float8
FROM outbox
WHERE id = ANY (%(ids)s) AND error IS NULL

-- name: delete
-- Forget rows that are in the log.
DELETE FROM outbox WHERE id = ANY (%(ids)s) AND error IS NULL

-- name: park
-- Set a row aside, so that the others go on.
UPDATE outbox SET error = %(error)s WHERE id = %(id)s AND error IS NULL

-- name: status
-- How many rows wait (100,001 stands for more), since when the first one does, and how many are parked. In the order
-- of the index, which passes over rows that were deleted, as a scan of the table does not.
SELECT
    (SELECT count(*) FROM (SELECT FROM outbox WHERE error IS NULL ORDER BY id LIMIT 100001) AS counted),
    (SELECT created_at FROM outbox WHERE error IS NULL ORDER BY id LIMIT 1),
    (SELECT count(*) FROM outbox WHERE error IS NOT NULL)

-- name: parked
-- The parked rows, oldest first.
SELECT id, created_at, key, lane, length(value), error, value
FROM outbox
WHERE error IS NOT NULL
ORDER BY id
LIMIT %(limit)s

-- name: retry
-- Put parked rows at the end of those that wait, under new ids; all of them if none is named.
WITH taken AS (
    DELETE FROM outbox
    WHERE error IS NOT NULL AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s))
    RETURNING id, created_at, lanes, lane, key, value
)
INSERT INTO outbox (created_at, lanes, lane, key, value)
SELECT created_at, lanes, lane, key, value FROM taken ORDER BY id

-- name: discard
-- Delete parked rows: their jobs will never exist; all of them if none is named.
DELETE FROM outbox WHERE error IS NOT NULL AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s))
