"""What `joblog replay` does, as calls that take the settings.

Inside: what_if.py; redriving.py, which puts jobs back and takes them back, with pacing.py and redrive_log.py.
"""
