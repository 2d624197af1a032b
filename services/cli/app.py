"""The command `joblog`: a table of commands, each loaded when it is called.

A command is a function, or a typer app with commands of its own; loading all of them would make the shortest
call wait a second for packages that it does not use, or that an installation without extras does not have.
"""

import logging
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from confluent_kafka import KafkaException
from joblog.services.cli.context import Cli, LogFormat, fail
from joblog.services.cli.extras import needs
from joblog.services.roles.kafka_errors import refused
from joblog.streams.errors import InvalidData, JoblogError
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


class Target(NamedTuple):
    """Where a command is, its line in the list, and the extra (of `pip install 'joblog[extra]'`) that it needs.

    The global options that have no effect on it are `ignored`.
    """

    place: str
    help: str
    panel: str
    extra: str = ""
    ignored: tuple[str, ...] = ("--log-format",)


RUN: Final = "Run"
JOBS: Final = "Jobs"
WATCH: Final = "Watch"
OPERATE: Final = "Operate"

COMMANDS: Final[Mapping[str, Target]] = {
    "up": Target(
        "cli.commands.up:up", "Run everything on this machine: Kafka, Postgres and all roles.", RUN, "embedded", ()
    ),
    "demo": Target(
        "cli.commands.demo:demo",
        "A detection service at work: runs that succeed, fail, recover and are withdrawn, and their clean-ups.",
        RUN,
        "demo",
        ("--config", "--log-format"),
    ),
    "elector": Target(
        "cli.commands.roles:elector", "Run an elector: it decides what happens to jobs.", RUN, ignored=()
    ),
    "delays": Target(
        "cli.commands.roles:delays",
        "Run the delays process: it reports scheduled jobs when they are due.",
        RUN,
        ignored=(),
    ),
    "worker": Target(
        "cli.commands.worker:app",
        "Run a worker: it runs the jobs of your tasks; or, with a command, tells one to rest, go on or stop.",
        RUN,
        ignored=(),
    ),
    "triggers": Target(
        "cli.commands.triggers:triggers",
        "Run triggers: they turn events of other services into jobs.",
        RUN,
        "faust",
        (),
    ),
    "hooks": Target(
        "cli.commands.hooks:hooks", "Run hooks: they are told of the transitions of jobs.", RUN, ignored=()
    ),
    "projector": Target(
        "cli.commands.projector:projector", "Run the projector: it keeps Postgres up to date.", RUN, ignored=()
    ),
    "recurring": Target(
        "cli.commands.recurring.app:app",
        "Run the recurring process, which creates jobs when they are due; or, with a command, manage recurring jobs.",
        RUN,
        ignored=(),
    ),
    "outbox": Target(
        "cli.commands.outbox:app",
        "Run the relay of an outbox, which puts its rows into the log; or, with a command, look after the outbox.",
        RUN,
        ignored=(),
    ),
    "enqueue": Target(
        "cli.commands.enqueue:enqueue", "Create a job, and print its id once Kafka has stored it.", JOBS
    ),
    "job": Target("cli.commands.jobs:app", "Show and change jobs.", JOBS),
    "batch": Target("cli.commands.batches:app", "Show and cancel batches.", JOBS),
    "bulk": Target("cli.commands.bulk:app", "Change many jobs in the background.", JOBS),
    "queue": Target("cli.commands.queues:app", "Show, pause, drain, resume and configure queues.", WATCH),
    "limits": Target(
        "cli.commands.limits:app",
        "Show limits: which jobs run with each, and which wait; and change them.",
        WATCH,
    ),
    "workers": Target("cli.commands.watch:workers", "List the workers.", WATCH),
    "stats": Target("cli.commands.watch:stats", "Count the jobs in each state.", WATCH),
    "rejected": Target("cli.commands.watch:rejected", "Show commands that were rejected.", WATCH),
    "parked": Target("cli.commands.watch:parked", "Show events that the projector could not apply.", WATCH),
    "deadletters": Target("cli.commands.deadletters:app", "Show records that could not be processed.", WATCH),
    "contract": Target("cli.commands.contract:app", "Check what producers send.", OPERATE),
    "topics": Target("cli.commands.topics:app", "Manage the Kafka topics.", OPERATE),
    "lanes": Target("cli.commands.lanes:app", "Show lanes, and repair those that were set aside.", OPERATE),
    "replay": Target(
        "cli.commands.replay.app:app",
        "Read the log again: verify, look at the past, rebuild, export, redrive, ask what if.",
        OPERATE,
    ),
    "migrate": Target("cli.commands.migrate:migrate", "Create or migrate the tables in Postgres.", OPERATE),
    "expire": Target(
        "cli.commands.projector:expire",
        "Delete the rows of jobs from Postgres that have expired; the log keeps their events.",
        OPERATE,
    ),
    "config": Target("cli.commands.config:app", "Show the settings.", OPERATE),
    "bench": Target(
        "cli.commands.bench:app",
        "Benchmark this installation, on topics and tables of its own that are removed afterwards.",
        OPERATE,
        "embedded",
    ),
    "doctor": Target(
        "cli.commands.doctor:doctor", "Check the installation, and say how to fix what is wrong.", OPERATE
    ),
}


#: The end of a line within a paragraph.
_LINE_END: Final = re.compile(r"(?<!\n)\n(?!\n)")


class LazyGroup(TyperGroup):
    """A group that lists the table's commands, and loads the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        tidied(self)
        for name, target in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=target.help, rich_help_panel=target.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name is not None else command, rest


def load(name: str) -> Any:
    """Load a command by its name; raises JoblogError if a package that it needs is not installed."""
    target = COMMANDS[name]
    module, _, attribute = target.place.partition(":")
    with needs(name, target.extra):
        found = getattr(import_module(f"joblog.services.{module}"), attribute)
    if isinstance(found, typer.Typer):
        command: Any = get_group(found)  # the options that install completion are those of `joblog` alone
    else:
        lone = typer.Typer(add_completion=False)
        lone.command(name)(found)
        command = get_command(lone)
    command.name = name
    return tidied(command)


def tidied(command: Any) -> Any:
    """Tidy the help of a command and its subcommands: join the lines of a paragraph, and show no value for flags."""
    command.help = _LINE_END.sub(" ", command.help or "")
    command.get_help_option = partial(_help_option, command.get_help_option)
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = " "
    for one in getattr(command, "commands", {}).values():
        tidied(one)
    return command


def _help_option(get: Callable[[Any], Any], ctx: Any) -> Any:
    option = get(ctx)
    if option is not None:
        option.metavar = " "
    return option


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(version("joblog"))
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with settings; also JOBLOG_CONFIG, or ./joblog.toml.")
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="Log format of up and of the roles, which log to stderr."),
    ] = None,
    show_version: Annotated[  # noqa: ARG001 - the callback answers
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Background jobs on Kafka: every step of every job is an event in the log.

    Start with `joblog demo` or `joblog up`. Settings come from JOBLOG_* variables, .env, a TOML file, and the
    addresses that `joblog up` leaves behind; `joblog config show` prints them.
    """
    given = {"--config": config, "--log-format": log_format}
    name = ctx.invoked_subcommand or ""
    if idle := [option for option in COMMANDS[name].ignored if given[option] is not None]:
        raise InvalidData(f"{idle[0]} has no effect on `joblog {name}`: leave it out")
    # Commands print their results and errors; roles set up their own logging (roles/logs.py).
    logging.getLogger().addHandler(logging.NullHandler())
    ctx.obj = Cli(config, log_format)


def main() -> None:
    """Run a command; expected errors and wrong input are reported without a traceback."""
    try:
        app()
    except JoblogError as exc:
        sys.exit(fail(exc))
    except KafkaException as exc:
        if (mistake := refused(exc)) is None:
            raise
        sys.exit(fail(mistake))
    except UnicodeEncodeError as exc:
        # Arguments that are not UTF-8 arrive as lone surrogates, which neither Kafka nor Postgres can store.
        if exc.reason != "surrogates not allowed":
            raise
        sys.exit(fail(InvalidData(f"{exc.object!r:.100} is not UTF-8")))
