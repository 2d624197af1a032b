"""The tables in Postgres: which version they have, how they get there, and how a row of `history` is to be read.

Inside: schema (the version that this code needs), migrate (brings the tables to it; the only user of alembic and
SQLAlchemy) with the statements in migrations/, prepare (loads that only if the tables are not there), and history
(the form of a job's events there, pure). Tables are changed by a new migration once a version with them was released.
May import: projections.database, streams; what writes and what reads the tables both import this, and it neither.
"""
