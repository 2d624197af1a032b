"""Benchmarks: throughput, latency, lateness, election, projection; each a function that yields measurements.

The roles run as child processes (processes.py), and what happens is read from the log (log.py). Only `joblog bench`
(cli/commands/bench.py) imports this package; it may import all of streams, projections, client, tasks and worker.
"""
