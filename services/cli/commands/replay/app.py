"""`joblog replay`: the log read again - compared, searched, copied, folded into new tables, and asked what if."""

import typer
from joblog.services.cli.commands.replay.export import export_command
from joblog.services.cli.commands.replay.importing import import_command
from joblog.services.cli.commands.replay.past import at, diff, history_command
from joblog.services.cli.commands.replay.rebuild import rebuild_command
from joblog.services.cli.commands.replay.redrive import redrive, undo
from joblog.services.cli.commands.replay.verify import verify
from joblog.services.cli.commands.replay.what_if import what_if

app = typer.Typer(no_args_is_help=True)


@app.callback()
def replay() -> None:
    """Read the log again: verify, look at the past, rebuild, export, redrive, ask what if.

    Everything works while the system runs. Ctrl-C stops a command, which then says how to go on; what reads or writes
    much keeps how far it is in a --directory, in its archive, or in the log.
    """


app.command()(verify)
app.command("rebuild")(rebuild_command)
app.command("history")(history_command)
app.command()(at)
app.command()(diff)
app.command("export")(export_command)
app.command("import")(import_command)
app.command("what-if")(what_if)
app.command("redrive")(redrive)
app.command("undo")(undo)
