-- The read model of one installation. Everything here is derived from the topic `events` and can be rebuilt
-- from it, so no table has foreign keys, and only the projector writes.

CREATE TYPE job_state AS ENUM (
    'Awaiting', 'Scheduled', 'Enqueued', 'Processing', 'Succeeded', 'Failed', 'Deleted'
);

-- One row for each job: what lists filter and sort by, and what it was created with. What else its current
-- state brought (reason, result, exception) is in its history at `state_version`. Columns of a fixed width come
-- first, as Postgres finds those faster.
CREATE TABLE jobs (
    id                uuid NOT NULL,
    created_at        timestamptz NOT NULL,
    changed_at        timestamptz NOT NULL,
    log_offset        bigint NOT NULL, -- of the last applied event
    version           integer NOT NULL,
    attempt           integer NOT NULL,
    retry             integer NOT NULL,
    priority          integer NOT NULL,
    state             job_state NOT NULL,
    lane              smallint NOT NULL,
    queue             text NOT NULL,
    task              text NOT NULL,
    state_version     integer, -- of the last event that was a transition; null if none was ever seen
    lease             integer,
    due               timestamptz,
    worker            text,
    parent            uuid,
    continue_on       text,
    exception_type    text, -- of the last failed run, whatever came after it
    exception_message text,
    -- jsonb, because one parameter at a time is set; null stands for none.
    parameters        jsonb,
    -- json, because it is written once, rarely read, and must come back exactly as it was written.
    spec              json,
    CONSTRAINT jobs_pkey PRIMARY KEY (id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);

-- A list is one scan of one of these for each state, already in order of time: jobs that changed in the same
-- instant are sorted by their ids when they are read, as each index without ids is a third of the size. A transition
-- moves a job in all of these, so each of them costs a microsecond for every insert and update.
CREATE INDEX jobs_by_state ON jobs (state, changed_at);
CREATE INDEX jobs_by_queue ON jobs (state, queue, changed_at);
CREATE INDEX jobs_by_task ON jobs (state, task, changed_at);
CREATE INDEX jobs_by_worker ON jobs (state, worker, changed_at) WHERE worker IS NOT NULL;
CREATE INDEX jobs_by_creation ON jobs (created_at);
-- Few jobs are in these.
CREATE INDEX jobs_by_due ON jobs (due, id) WHERE state = 'Scheduled';
CREATE INDEX jobs_by_retry ON jobs (due, id) WHERE state = 'Scheduled' AND retry > 0;
CREATE INDEX jobs_by_exception ON jobs (state, changed_at) WHERE exception_type IS NOT NULL;
CREATE INDEX jobs_by_parent ON jobs (parent, changed_at) WHERE parent IS NOT NULL;
-- The runs of recurring jobs: which definition and which occurrence made a job is in its parameters, since its first
-- event has them. So a run is a job's row, found by this index: it goes when that goes, a rebuild makes it again, and
-- verification compares it, without a word about runs anywhere. A table of runs, or columns, would cost each other job
-- a look, or bytes, on its way into the tables; here, it is not in the index, which costs one test of a null. Cut, as
-- anybody may set a parameter, and what is too long for an index would keep its job out of the tables. The text of an
-- occurrence sorts as its time does.
CREATE INDEX jobs_by_recurring ON jobs (
    left(parameters ->> 'RecurringJobId', 200), left(parameters ->> 'Time', 40) COLLATE "C"
) WHERE parameters ->> 'RecurringJobId' IS NOT NULL AND parameters ->> 'Time' IS NOT NULL;
-- Of a partial index the planner takes no statistics, and would sort all jobs of a definition that has half of them.
CREATE STATISTICS jobs_by_recurring_id ON (left(parameters ->> 'RecurringJobId', 200)) FROM jobs;

-- The events of jobs. A row holds several of them, if they came together and without a gap: those from `version`
-- to `last_version`, each a JSON array as projections/schema/history.py says. No two rows hold the same event.
CREATE TABLE history (
    job          uuid NOT NULL,
    version      integer NOT NULL,
    last_version integer NOT NULL,
    events       text[] NOT NULL,
    CONSTRAINT history_pkey PRIMARY KEY (job, version)
);

-- How many jobs are in each state now. By lane, as a lane has one writer: no two projectors share a row.
CREATE TABLE counts (
    lane  smallint NOT NULL,
    queue text NOT NULL,
    state job_state NOT NULL,
    n     bigint NOT NULL,
    PRIMARY KEY (lane, queue, state)
) WITH (fillfactor = 50);

CREATE TYPE period AS ENUM ('ever', 'day', 'hour');

-- How many jobs came to an end: ever (since 1970), and in each day and hour of UTC. A failure counts unless
-- it was traversed.
CREATE TABLE outcomes (
    lane   smallint NOT NULL,
    period period NOT NULL,
    since  timestamptz NOT NULL,
    state  job_state NOT NULL,
    n      bigint NOT NULL,
    PRIMARY KEY (period, since, lane, state)
) WITH (fillfactor = 70);

-- Rows of ended jobs that left `jobs` and `history`, since they had expired (projections/expiry): of each lane, queue,
-- task and state, when the last of them ended, and how many they were.
CREATE TABLE expired (
    lane    smallint NOT NULL,
    queue   text NOT NULL,
    task    text NOT NULL,
    state   job_state NOT NULL,
    through timestamptz NOT NULL, -- the greatest changed_at of them
    n       bigint NOT NULL,
    PRIMARY KEY (lane, queue, task, state)
) WITH (fillfactor = 70);

-- The same of batches that left `batches`.
CREATE TABLE expired_batches (
    lane    smallint NOT NULL,
    state   job_state NOT NULL,
    through timestamptz NOT NULL,
    n       bigint NOT NULL,
    PRIMARY KEY (lane, state)
) WITH (fillfactor = 70);

-- Jobs that are in `jobs` again after their rows had expired: from the event of this version on.
CREATE TABLE returned (
    job     uuid PRIMARY KEY,
    version integer NOT NULL
);

-- Up to which time the counts in `outcomes` have expired.
CREATE TABLE expired_outcomes (
    lane   smallint NOT NULL,
    period period NOT NULL,
    before timestamptz NOT NULL,
    PRIMARY KEY (lane, period)
);

-- The last complete pass of expiry over each lane: all rows that had expired by `rules` at `until` went, but for those
-- that were applied at or behind `next_offset` of the lane.
CREATE TABLE expiry (
    lane        smallint PRIMARY KEY,
    ran_at      timestamptz NOT NULL,
    until       timestamptz NOT NULL, -- the tables held all that the log held then
    next_offset bigint NOT NULL,
    rules       text NOT NULL -- JSON, as projections/expiry/rules.py writes it
);

CREATE TABLE workers (
    id         text PRIMARY KEY,
    state      text NOT NULL, -- running, stopped or lost
    queues     text[] NOT NULL,
    tasks      text[] NOT NULL,
    slots      integer NOT NULL,
    host       text NOT NULL,
    pid        bigint NOT NULL,
    started_at timestamptz NOT NULL,
    heartbeat  timestamptz NOT NULL,
    lane       smallint NOT NULL, -- where the last applied event stands: in its home lane, as a rule
    log_offset bigint NOT NULL
) WITH (fillfactor = 70);

-- What the last event of each batch says.
CREATE TABLE batches (
    id          uuid PRIMARY KEY,
    created_at  timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL, -- when its last event was written
    log_offset  bigint NOT NULL,
    total       bigint NOT NULL, -- jobs and inner batches that were to be added; the next four: how many were, and ended
    created     bigint NOT NULL,
    succeeded   bigint NOT NULL,
    failed      bigint NOT NULL,
    deleted     bigint NOT NULL,
    batch       uuid, -- the outer one
    parent      uuid, -- what it waits, or waited, for
    version     integer NOT NULL,
    state       job_state NOT NULL,
    lane        smallint NOT NULL,
    cancelled   boolean NOT NULL,
    continue_on text,
    description text,
    reason      text
) WITH (fillfactor = 70);

CREATE INDEX batches_by_creation ON batches (created_at, id);
CREATE INDEX batches_by_end ON batches (state, changed_at) WHERE state IN ('Succeeded', 'Failed', 'Deleted');
CREATE INDEX batches_open ON batches (state) WHERE state IN ('Awaiting', 'Processing');
CREATE INDEX batches_by_batch ON batches (batch, id) WHERE batch IS NOT NULL;

-- The jobs of each batch. A table of its own, as most jobs have none: a column of theirs would cost all of them. A job
-- that was created anew under its id, when its lane had forgotten it, is here twice.
CREATE TABLE batch_jobs (
    batch      uuid NOT NULL,
    job        uuid NOT NULL,
    log_offset bigint NOT NULL, -- of its first event
    PRIMARY KEY (batch, job, log_offset)
);

-- For expiry: a job that leaves `jobs` leaves this, too.
CREATE INDEX batch_jobs_by_job ON batch_jobs (job);

-- The parents of each job that was created to wait for several: a table of its own, as that of batches.
CREATE TABLE job_parents (
    parent     uuid NOT NULL,
    job        uuid NOT NULL,
    log_offset bigint NOT NULL, -- of its first event
    lane       smallint NOT NULL,
    PRIMARY KEY (parent, job, log_offset)
);

CREATE INDEX job_parents_by_job ON job_parents (job);

-- Commands that could not be done.
CREATE TABLE rejected (
    lane       smallint NOT NULL,
    log_offset bigint NOT NULL,
    at         timestamptz NOT NULL,
    code       text NOT NULL,
    reason     text NOT NULL,
    command    text,
    command_id text,
    job        uuid,
    position   text,
    existing   uuid, -- the job that is there in place of the one that was to be created
    PRIMARY KEY (lane, log_offset)
);

CREATE INDEX rejected_by_time ON rejected (at, lane, log_offset);
CREATE INDEX rejected_by_job ON rejected (job) WHERE job IS NOT NULL;

-- A bulk operation is asked how many of its commands were rejected: their ids begin with its own. Cut, as any client
-- may send any id.
CREATE INDEX rejected_by_command ON rejected (left(command_id, 100) COLLATE "C");

-- The queues of which no job starts, by lane: each lane in which a queue lives pauses it for itself.
CREATE TABLE paused_queues (
    lane       smallint NOT NULL,
    queue      text NOT NULL,
    state      text NOT NULL, -- paused, draining (some of its jobs still run) or drained
    since      timestamptz NOT NULL,
    until      timestamptz, -- null: until somebody resumes it
    paused_by  text,
    reason     text,
    log_offset bigint NOT NULL,
    PRIMARY KEY (lane, queue)
);

-- The limits of queues, by lane: each lane in which a queue lives notes them when it has heard of them.
CREATE TABLE queue_limits (
    lane       smallint NOT NULL,
    queue      text NOT NULL,
    kind       text NOT NULL,
    capacity   bigint NOT NULL,
    interval_s double precision, -- of a rate
    since      timestamptz NOT NULL,
    set_by     text,
    reason     text,
    log_offset bigint NOT NULL,
    PRIMARY KEY (lane, queue)
);

-- Bulk operations: each changes all jobs that a filter found.
CREATE TABLE bulk (
    id         uuid PRIMARY KEY,
    lane       smallint NOT NULL,
    state      text NOT NULL, -- running, done, cancelled or failed
    action     text NOT NULL,
    filter     json NOT NULL,
    fence      bigint[] NOT NULL, -- by lane: jobs with an event at this offset or later are left alone
    rate       double precision NOT NULL, -- jobs a second
    queue      text,
    priority   integer,
    matched    bigint NOT NULL,
    sent       bigint NOT NULL, -- commands
    cursor     uuid, -- the last job that a command was sent for
    started_by text,
    reason     text,
    started_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    ended_by   text,
    end_reason text,
    log_offset bigint NOT NULL
);

-- Records of the log that could not be applied, or not without remark: with code `version_gap` the event
-- was applied, though some before it were never seen.
CREATE TABLE parked (
    lane       smallint NOT NULL,
    log_offset bigint NOT NULL,
    at         timestamptz NOT NULL, -- when the broker wrote the record
    code       text NOT NULL,
    reason     text NOT NULL,
    raw        bytea, -- the record's value as it came
    PRIMARY KEY (lane, log_offset)
);

CREATE INDEX parked_by_time ON parked (at, lane, log_offset);

-- The next record of each lane to apply, moved in the same transaction as what was applied. Everything
-- that the log held at `current_at` is in these tables.
CREATE TABLE offsets (
    lane        smallint PRIMARY KEY,
    next_offset bigint NOT NULL, -- 0: from the beginning
    log_time    timestamptz, -- when the broker wrote the last applied record
    current_at  timestamptz
) WITH (fillfactor = 50);
