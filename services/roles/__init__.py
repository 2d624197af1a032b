"""The processes of Joblog: how each role is put together, started, watched and stopped.

- wiring, worker, projector, outbox: the composition roots. Each returns a builder for `run_role`; they are apart so
  that an elector does not import what only a worker or a projector needs.
- topics: the check of the topics around every role. runner: signals, HTTP, logs and exit codes around every role.
- http, logs, kafka_errors: what a process serves over HTTP, how it logs, which errors are mistakes in the settings.
- supervisor: runs the commands of roles as child processes, for `joblog up` and the demo.

A new role gets a composition root here, a row in `TOPICS_OF_ROLES` (streams/contract/topics.py) and a command in
services/cli/commands. Nothing here decides about jobs. May import the packages of the roles, settings, `embedded`,
`projections` and `streams`; the command line, benchmarks and the doctor import it.
"""
