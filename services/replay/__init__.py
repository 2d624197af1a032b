"""What `joblog replay` does, as calls that take the settings: what_if.py, redriving.py (with pacing.py, redrive_log.py)."""
