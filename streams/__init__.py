"""The log: what happened to jobs, and what may happen next."""
