"""What a lane does besides moving jobs: each feature is one file here and one line in catalog.py.

Inside: workers.py (with slots.py: what each worker offers and holds), continuations.py (with recent_ends.py: the
results of the last jobs), unique_keys.py, queue_control.py (paused queues), bulk.py (how far bulk
operations are), batches.py (with batch_owner.py: the batches that a lane keeps, and batch_parts.py: those of which it
has jobs), failed_jobs.py, memory.py. A feature owns its records in the `state` topic, by the prefix of their keys,
handles its own reports, and acts at the hooks that it declares (lane/feature.py).

What may be touched: a feature's own file; a new one adds a file and its line in catalog.py. The order there is the
order in which features act.

May import: streams.contract, and of streams.lane the pipeline and what is below it; never lane.py, another feature,
Kafka or a clock.
"""
