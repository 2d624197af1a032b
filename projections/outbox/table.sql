-- The table of an outbox, and what writes into it; {schema} is put in by table.py.

-- name: create
-- Make the table, unless it is there. Who has not the rights to make one may call this where somebody else has made it.
DO $create$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('joblog outbox {schema}', 0));
    IF to_regclass('"{schema}".outbox') IS NOT NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}') THEN
        CREATE SCHEMA "{schema}";
    END IF;
    CREATE TABLE "{schema}".outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        lanes integer NOT NULL,
        lane integer NOT NULL,
        key text NOT NULL,
        value bytea NOT NULL,
        error text
    );
    COMMENT ON TABLE "{schema}".outbox IS 'Commands to Joblog; `joblog outbox` relays and deletes them in the order of id';
    COMMENT ON COLUMN "{schema}".outbox.error IS 'Why a row is parked: it waits for `joblog outbox retry` or `discard`';
    CREATE INDEX outbox_parked ON "{schema}".outbox (id) WHERE error IS NOT NULL;
    -- Who this outbox is among those of an installation. A copy of the database that relays into the same Kafka
    -- needs another id.
    CREATE TABLE "{schema}".outbox_identity (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        id uuid NOT NULL DEFAULT gen_random_uuid()
    );
    INSERT INTO "{schema}".outbox_identity DEFAULT VALUES;
    -- Transactions that notify are committed one after the other. Where that costs too much, drop the trigger, and set
    -- outbox.poll_s to how late a row may be.
    CREATE FUNCTION "{schema}".outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $notify$
    BEGIN
        PERFORM pg_notify('joblog_outbox', TG_TABLE_SCHEMA);
        RETURN NULL;
    END
    $notify$;
    CREATE TRIGGER outbox_notify AFTER INSERT ON "{schema}".outbox
        FOR EACH STATEMENT EXECUTE FUNCTION "{schema}".outbox_notify();
END
$create$

-- name: insert
-- Add commands, in the order in which they are given.
INSERT INTO "{schema}".outbox (lanes, lane, key, value)
SELECT %(lanes)s, lane, key, value
FROM unnest(%(lane)s::integer[], %(key)s::text[], %(value)s::bytea[]) WITH ORDINALITY
    AS given (lane, key, value, place)
ORDER BY place

-- name: take
-- Take out the commands that wait, for who hands them on at once (tests of users); in any order.
DELETE FROM "{schema}".outbox
WHERE error IS NULL
RETURNING id, lanes, lane, key, value, extract(epoch FROM created_at)::float8
