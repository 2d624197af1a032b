"""The worker: runs the jobs that electors assign to it, and reports how each one ended.

Public are `worker.Worker`, and `filters.WorkerFilter` for packages that offer worker filters. Read worker.py first;
`execution` performs single runs; `orders.py` is what people tell a worker from outside. May import the tasks and the
log (joblog.streams), and neither the settings nor the roles: a worker gets its options as arguments.
"""
