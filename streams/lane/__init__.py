"""The decisions of one lane: a pure core, in which nothing reads a clock, draws a random number or does I/O.

Inside, from the bottom up:

- job.py: a job, and how an event changes it. transitions.py: which input is accepted in which state, and the
  candidate event that it leads to. filters.py: the elect-state filters, which may replace a candidate.
- store.py, queue.py, waiting.py: where jobs wait. ended_jobs.py: the memory of ended ids. log_clock.py: time in the
  log. output.py: what a lane wants written. rules.py: the settings that it decides by.
- pipeline.py: the one way in which a job is created and moved. commands.py: how commands are decided.
- feature.py: what a feature is. features/: the features themselves. lane.py: all of it composed, for the elector.

What may be touched: another rule is a row in `TRANSITIONS` with its proposal; everything that concerns more than
one job, a worker or time is a feature, one file in features/. Nothing but the pipeline changes a job or writes its
events. Every job takes this path, so what only some jobs use has to cost the others nothing (see feature.py).

May import: streams.contract and streams.plugins; never Kafka, the elector or services.
"""
