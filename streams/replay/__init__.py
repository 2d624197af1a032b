"""Decisions made again from the topic `events` alone: the same way as a check, or another way as a question.

Inside: stored.py (an event as it lies in the log), log.py (reads lanes of `events`), inputs.py (what led to one),
redecision.py (decides each input anew and compares), history.py (the runs of one job, and what came from outside),
what_if.py (that job through another retry policy or other filters), continuations.py, batches.py and batch_jobs.py
(what that changes for the jobs and batches that depend on it), asking.py and following.py (that, asked of a whole
log), outcomes.py (the changes, summed up), lineage.py (what a redrive led to).

Theory of operation. An election depends on the job, its input, the time and chance. The fold of a job's events is
the job; an event, its cause and its time tell the input; chance is a function of the job's id (contract/retry.py).
So each event can be decided anew. Two things are not in the log: what a custom filter replaced by its own event,
unless that was a failure, which is written too; and the commands that were rejected.

What may be touched: another input of the lanes needs its line in inputs.py; the acceptance tests decide all of their
events anew and find what is missing.

May import: streams.lane, streams.contract; log.py also streams.kafka. Only log.py does I/O.
"""
