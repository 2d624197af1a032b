"""`joblog topics create`."""

import typer
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_rows
from joblog.services.cli.values import settings_of
from joblog.streams.contract.topics import TOPICS
from joblog.streams.kafka.admin import create_topics

app = typer.Typer(no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Manage the Kafka topics."""


@app.command()
def create(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Create missing topics with the configured number of lanes and replicas.

    Safe to repeat. The number of lanes can never be changed.

    Example: JOBLOG_LANES=24 JOBLOG_REPLICATION=3 joblog topics create
    """
    settings = settings_of(ctx)
    create_topics(settings.kafka.config(), settings.names, settings.lanes, replication=settings.replication)
    if output is Output.JSON:
        print_rows(
            (
                {"topic": settings.names.of(topic), "partitions": topic.partitions or settings.lanes}
                for topic in TOPICS
            ),
            (),
            output,
        )
    else:
        note(f"all {len(TOPICS)} topics are there: {settings.topic_prefix}*, {settings.lanes} lanes")
