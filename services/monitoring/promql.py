"""Queries: every metric that one names must be a row of the table of metrics, or a recording rule."""

import re
from collections.abc import Collection, Mapping
from typing import Final

from joblog.streams.errors import JoblogError
from joblog.streams.metrics import METRICS, Metric

_ROWS: Final[Mapping[str, Metric]] = {row.name: row for row in METRICS}
#: A name with its matchers, if it has some.
_SELECTOR: Final = re.compile(r"\b(joblog[_:][a-z0-9_:]+)(?:\{([^}]*)\})?")
_SUFFIXES: Final = ("_bucket", "_count", "_sum")
#: Labels that the dashboards have a variable for; every series has an instance.
VARIABLES: Final = ("queue", "task")


class UnknownMetric(JoblogError):
    """A query names a metric that the table does not have."""


def names(query: str) -> set[str]:
    """The names of metrics and recording rules in a query, as they stand there."""
    return {match[1] for match in _SELECTOR.finditer(query)}


def row_of(name: str) -> Metric:
    """The metric that a series belongs to; UnknownMetric if there is none."""
    found = _ROWS.get(name)
    if found is not None and found.kind != "histogram":
        return found
    for suffix in _SUFFIXES:
        found = _ROWS.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if found is not None and found.kind == "histogram":
            return found
    raise UnknownMetric(f"{name} is not a series of a metric in joblog.streams.metrics")


def checked(query: str, records: Collection[str] = ()) -> str:
    """The query; UnknownMetric if it names what neither the table nor `records` has."""
    for name in names(query):
        if name not in records:
            row_of(name)
    return query


def with_variables(query: str) -> str:
    """The query with the dashboards' variables as matchers, for those labels that each of its metrics has."""

    def extended(match: re.Match[str]) -> str:
        row = row_of(match[1])
        ours = [f'{label}=~"${label}"' for label in ("instance", *(v for v in VARIABLES if v in row.labels))]
        theirs = [match[2]] if match[2] else []
        return f"{match[1]}{{{', '.join([*theirs, *ours])}}}"

    return _SELECTOR.sub(extended, query)
