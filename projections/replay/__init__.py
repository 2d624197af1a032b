"""The log read again: what it says, compared with what Postgres and electors hold; and the past.

Inside: verification, which compares; rebuild, which makes new tables; past and instants, which answer what was. lives
and sorted_runs are what they need together. May import: all of projections, streams; nothing in projections may
import it.
"""
