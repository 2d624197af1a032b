"""What a dashboard is: rows of panels, each with its queries."""

from dataclasses import dataclass
from typing import Final

#: How a time series is summed up over what it has been scraped for; Grafana chooses the window.
WINDOW: Final = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel over time, or one number.

    - queries: (query, legend); the variables of the dashboard are put in where its metrics have these labels.
    - unit: Grafana's name of it.
    """

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    is_number: bool = False
    is_stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard; `uid` stays the same for ever, since links hold it."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def rate(series: str, by: str = "") -> str:
    """How often a second, summed up by labels."""
    return f"{_sum(by)} (rate({series}[{WINDOW}]))"


def quantile(q: float, histogram: str, by: str = "") -> str:
    """A quantile of a histogram, by labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({histogram}_bucket[{WINDOW}])))"


def mean(histogram: str) -> str:
    """The average of what a histogram observed."""
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


def quantiles(histogram: str) -> tuple[tuple[str, str], ...]:
    """The queries of the usual quantiles."""
    return tuple((quantile(q, histogram), f"{q:.0%}") for q in (0.5, 0.95, 0.99))


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"
