-- What a rebuild asks and does; the names of schemas are put in as identifiers where a statement cannot take parameters.

-- name: lock
-- One rebuild of a schema at a time; held as long as the connection.
SELECT pg_try_advisory_lock(hashtextextended(%(name)s, 0))

-- name: lock_migrations
-- Nobody migrates the schema meanwhile; held until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 0))

-- name: schemas
-- Those of the schemas that are there: their owners, whether this user is one, their sizes and remarks.
SELECT
    n.nspname AS schema, n.nspowner::regrole::text AS owner, pg_has_role(n.nspowner, 'USAGE') AS is_owner,
    coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint AS bytes,
    coalesce(max(c.reltuples) FILTER (WHERE c.relname = 'jobs'), -1)::bigint AS jobs,
    obj_description(n.oid, 'pg_namespace') AS remark
FROM pg_namespace AS n LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'm')
WHERE n.nspname = ANY (%(schemas)s)
GROUP BY n.oid

-- name: who
-- This user, and whether it may make schemas.
SELECT current_user::text AS name, has_database_privilege(current_database(), 'CREATE') AS may_create

-- name: tables
-- The tables of a schema, in the order in which a rebuild locks them.
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') ORDER BY c.relname

-- name: foreign_owners
-- Tables of a schema that belong to somebody else than the schema.
SELECT c.relname, c.relowner::regrole::text AS owner
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind = 'r' AND c.relowner <> n.nspowner ORDER BY c.relname

-- name: dependents
-- Views that read tables of the schema, wherever they are: they would go on reading the former tables.
SELECT DISTINCT v.oid::regclass::text AS view
FROM pg_depend AS d
JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
JOIN pg_class AS v ON v.oid = r.ev_class
JOIN pg_class AS c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND v.oid <> c.oid ORDER BY view

-- name: additions
-- Tables, views, sequences and functions that the one schema has and the other has not.
SELECT name FROM (
    SELECT c.relname::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL
    SELECT p.proname || '()' FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s
) AS here
EXCEPT ALL
SELECT name FROM (
    SELECT c.relname::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(other)s AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL
    SELECT p.proname || '()' FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = %(other)s
) AS there
ORDER BY name

-- name: indexes
-- The indexes of a schema that belong to no constraint, and what makes them.
SELECT i.relname AS name, pg_get_indexdef(i.oid) AS definition
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_namespace AS n ON n.oid = i.relnamespace
WHERE n.nspname = %(schema)s AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = i.oid)
ORDER BY i.relname

-- name: grants
-- What makes the rights that others have on one schema and its tables the rights on another one.
WITH source AS (SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname = %(source)s),
rights AS (
    SELECT a.grantee, a.is_grantable, a.privilege_type, format('SCHEMA %%I', %(target)s::text) AS what
    FROM source CROSS JOIN LATERAL aclexplode(nspacl) AS a WHERE a.grantee <> nspowner
    UNION ALL
    SELECT a.grantee, a.is_grantable, a.privilege_type, format('TABLE %%I.%%I', %(target)s::text, c.relname)
    FROM source JOIN pg_class AS c ON c.relnamespace = source.oid AND c.relkind IN ('r', 'p')
    CROSS JOIN LATERAL aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner
    UNION ALL
    SELECT
        a.grantee, a.is_grantable, format('%%s (%%I)', a.privilege_type, t.attname),
        format('TABLE %%I.%%I', %(target)s::text, c.relname)
    FROM source JOIN pg_class AS c ON c.relnamespace = source.oid AND c.relkind IN ('r', 'p')
    JOIN pg_attribute AS t ON t.attrelid = c.oid AND NOT t.attisdropped
    CROSS JOIN LATERAL aclexplode(t.attacl) AS a WHERE a.grantee <> c.relowner
)
SELECT format(
    'GRANT %%s ON %%s TO %%s%%s', privilege_type, what,
    CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
)
FROM rights

-- name: positions
-- How far the tables of a schema are in each lane, and how long ago they held all that the log held.
SELECT lane, next_offset, extract(epoch FROM clock_timestamp() - current_at)::float8 FROM {}.offsets ORDER BY lane

-- name: holders
-- Who holds a lock on the tables of a schema for longest, other than this connection.
SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type) AS name
FROM pg_locks AS l
JOIN pg_class AS c ON l.relation = c.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE n.nspname = %(schema)s AND l.granted AND l.pid <> pg_backend_pid()
ORDER BY a.xact_start LIMIT 1
