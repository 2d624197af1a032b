"""Benchmarks, measured from outside the processes."""
