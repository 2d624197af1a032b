"""The client: creates jobs and changes them.

`client.py` has the public methods, `options.py` what a job can be created with, `templates.py` and `changes.py` make
the commands, `queues.py`, `workers.py` and `bulk.py` those that name no job, `sending.py` sends them and waits for
Kafka's acknowledgement. May import streams, settings and tasks.
"""
