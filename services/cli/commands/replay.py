"""`joblog replay`: the log read again - compared, searched, copied, and folded into new tables."""

import typer
from joblog.services.cli.commands.replay_rebuild import rebuild_command

app = typer.Typer(no_args_is_help=True)


@app.callback()
def replay() -> None:
    """Read the log again: compare it with the tables, look at the past, copy it, build tables from it.

    Everything works while the system runs. Ctrl-C stops a command; run again, it goes on where that makes sense.
    """


app.command("rebuild")(rebuild_command)
