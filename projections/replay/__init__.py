"""The log read again: what it says, compared with what Postgres and `state` hold; and the past.

Inside: verification, which does all of it in bounded memory: log_pass makes traces (trace) of jobs in sorted_runs,
audit looks at each, compare and sides hold them against tables, state_topic against `state`; totals and orphans see
what is of many jobs. past answers what was. verify, with verify.sql, is the simple form that holds the whole log in
memory, for tests: `differences` and `read_log`. May import: all of projections, streams; nothing in projections may
import it.
"""
