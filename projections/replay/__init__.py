"""The log read again: what it says, compared with what Postgres and electors hold; and the past.

Inside: verification, which does all of it in bounded memory: log_pass makes traces (trace) of jobs in sorted_runs;
jobs looks at each (regular, audit), and adds up what a lane must hold (lane_sums, row_hash, lane_hashes); job_by_job
and sides name what differs. Beside jobs: totals and last_words, aside (rejected and parked records), state_topic with
state_check, dead_letters; orphans sees what is of many jobs. past answers what was; lives is what both need. May
import: all of projections, streams; nothing in projections may import it.
"""
