"""How one run is performed: its arguments, the call in a thread, on an event loop or in a process, its outcome.

run.py has the run itself, performing.py what happens around the task's function; nothing in here reads from Kafka.
"""
