"""The log read again: what it says, compared with what Postgres holds.

Inside: verify with verify.sql, which folds the whole log and compares it with the tables, row by row. Tests and tools
call `differences` and `read_log`. May import: all of projections, streams; nothing in projections may import it.
"""
