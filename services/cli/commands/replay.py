"""`joblog replay`: the log read again - compared, searched, copied, and folded into new tables."""

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def replay() -> None:
    """Read the log again: compare it with the tables, look at the past, copy it.

    Everything works while the system runs. Ctrl-C stops a command; run again, it goes on where that makes sense.
    """
