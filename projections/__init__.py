"""The answers: Postgres tables derived from the log; disposable, rebuildable."""
