"""A real Kafka broker and a real Postgres as child processes, for development, demonstrations and tests.

`stack.py` starts and stops both in one directory; `kafka.py` and `postgres.py` know one server each, `server.py` runs
a child process, `guard.py` ends it if its parent dies, `jars.py` fetches Kafka once, `ports.py` chooses ports.
Imports nothing of Joblog but its errors; needs the packages of the extra `embedded`.
"""
