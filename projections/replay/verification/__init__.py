"""Whether the log, Postgres and what electors keep say the same, in bounded memory.

verification does all of it: log_pass makes traces (trace) of jobs in sorted runs; jobs looks at each (regular,
audit), and adds up what a lane must hold (lane_sums, row_hash, lane_hashes); job_by_job and sides name what differs.
Beside jobs: totals and last_words, aside (rejected and parked records), state_topic with state_check, dead_letters;
orphans sees what is of many jobs. report is the outcome, findings its parts. May import: what projections.replay may.
"""
