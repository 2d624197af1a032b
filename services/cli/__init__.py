"""The command `joblog`.

`app.py` is the table of commands; each has a module in `commands/`, loaded only when it is called. `output.py` prints
tables for people and JSON for programs, `values.py` parses options, `postgres.py` queries the read model. Nothing
else imports this package; it may import everything.
"""
