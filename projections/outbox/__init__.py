"""The transactional outbox: its table, and the relay that puts its rows into the log.

- table.sql, table.py: the table that writers insert into; also used by services/outbox, which writes.
- outbox.sql, rows.py: the relay's and the operator's statements. relay.py: the relay, and why it is exact: read it
  first.

May import streams, and of the projections only what they share (database, statements, schema names).
"""
