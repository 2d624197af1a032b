"""The tasks that benchmarks run: they do nothing, or return when they started."""

import time

from joblog.services.tasks.task import task
from joblog.streams.contract.commands import Unique

QUEUE = "bench"


@task("bench.noop", queue=QUEUE)
def noop(_text: str) -> None:
    """Do nothing: everything around a job is measured."""


@task("bench.keyed", queue=QUEUE, unique=Unique(key="{key}"))
def keyed(_text: str, key: str) -> None:
    """Do nothing, under a unique key."""


@task("bench.stamp", queue=QUEUE)
def stamp(_text: str) -> float:
    """The instant at which the run began, unix milliseconds."""
    return time.time() * 1000
