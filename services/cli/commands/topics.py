"""`joblog topics create` and `joblog topics update`."""

from typing import Annotated

import typer
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_rows
from joblog.services.cli.values import settings_of
from joblog.streams.contract.topics import TOPICS
from joblog.streams.errors import InvalidData, TopicsError
from joblog.streams.kafka.admin import alter_topics, check_topics, create_topics, topic_differences
from joblog.streams.kafka.topic_rules import wanted_partitions

app = typer.Typer(no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Manage the Kafka topics."""


@app.command()
def create(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Create missing topics with the configured number of lanes and replicas.

    Safe to repeat. The number of lanes can never be changed. Settings of existing topics are left alone; those that
    differ from what Joblog needs are listed, and `joblog topics update` changes them.

    Example: JOBLOG_LANES=24 JOBLOG_REPLICATION=3 joblog topics create
    """
    settings = settings_of(ctx)
    config, names, lanes = settings.kafka.config(), settings.names, settings.lanes
    create_topics(config, names, lanes, replication=settings.replication)
    try:
        differing = topic_differences(config, names)
    except TopicsError as exc:  # a user who may create topics need not have the right to see their settings
        note(str(exc))
        differing = []
    for one in differing:
        note(f"{one.topic}: {one.setting} is {one.found}, not {one.wanted}; `joblog topics update` changes it")
    if output is Output.JSON:
        rows = ({"topic": names.of(topic), "partitions": wanted_partitions(topic, lanes)} for topic in TOPICS)
        print_rows(rows, (), output)
    else:
        note(f"all {len(TOPICS)} topics exist: {settings.topic_prefix}*, {lanes} lanes")


@app.command()
def update(
    ctx: typer.Context,
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[TOPIC]...", help="Change these topics only.", show_default="all")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the changes without making them.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change the settings of existing topics that differ from what Joblog needs.

    These are retention, clean-up policy, timestamps and record size. A retention that is longer than needed is kept.
    Partition counts and replicas are never changed.

    Example: joblog topics update --dry-run
    """
    settings = settings_of(ctx)
    config, names = settings.kafka.config(), settings.names
    check_topics(config, names, settings.lanes)
    known = [names.of(topic) for topic in TOPICS]
    if unknown := [name for name in only or () if name not in known]:
        raise InvalidData(f"{', '.join(unknown)}: not a topic of this installation, which has {', '.join(known)}")
    changes = [one for one in topic_differences(config, names) if not only or one.topic in only]
    if not dry_run:
        alter_topics(config, changes)
    rows = [{"topic": one.topic, "setting": one.setting, "before": one.found, "now": one.wanted} for one in changes]
    if output is Output.JSON or rows:
        print_rows(rows, ("topic", "setting", "before", "now"), output)
    if not rows:
        note("nothing to change")
    elif dry_run:
        note("nothing was changed (--dry-run)")
