"""`joblog doctor`."""

from collections.abc import Sequence
from typing import Final

import typer
from joblog.services.cli.context import Output, OutputOption
from joblog.services.cli.output import print_rows
from joblog.services.cli.values import settings_of
from joblog.services.doctor.doctor import Check, Level, examine
from joblog.services.doctor.kafka import examine_kafka
from joblog.services.doctor.outbox import examine_outbox
from joblog.services.doctor.postgres import examine_postgres
from joblog.services.doctor.this_process import durability, variables, versions

CHECKS: Final[Sequence[tuple[str, Check]]] = (
    ("versions", versions),
    ("settings", variables),
    ("rules", durability),
    ("Kafka", examine_kafka),
    ("Postgres", examine_postgres),
    ("outbox", examine_outbox),
)


def doctor(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Check the installation, and say how to fix what is wrong.

    Checks settings, brokers, topics, electors, lanes, backlogs, dead letters, Postgres, clocks, workers
    and an outbox; changes nothing. The exit code is 1 if a check fails.

    Example: joblog doctor --output json
    """
    findings = list(examine(settings_of(ctx), CHECKS))
    if output is Output.JSON:
        print_rows((one._asdict() for one in findings), (), output)
    else:
        # Most findings need no fix: a column for it would leave little room for the others.
        texts = [f"{one.finding}\n-> {one.fix}" if one.fix else one.finding for one in findings]
        rows = [{**one._asdict(), "finding": text} for one, text in zip(findings, texts, strict=True)]
        print_rows(rows, ("level", "check", "finding"), output)
    if any(one.level is Level.FAIL for one in findings):
        raise typer.Exit(1)
