"""The process that applies the topic `events` to Postgres, exactly once.

Inside, in the order in which a record passes: log (Kafka), decode and fold (what events say, and what they make of a
job), event_batch (records as one batch), rows and blocks (the batch as rows), tables with apply.sql (Postgres),
answers (what lanes ask about jobs), and projector, the loop. decode, fold, event_batch, rows and blocks are pure.
`Projector` is for the roles, `fold` and `Entries` for replay; anything else may change. May import:
projections.schema, projections.database and .statements, streams; Kafka's client in log and projector only, psycopg
in tables, projector, and what they hand their connection. Never the monitor.
"""
