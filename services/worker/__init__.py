"""The worker: runs the jobs that electors assign to it, and reports how each one ended."""
