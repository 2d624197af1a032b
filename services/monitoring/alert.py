"""What an alert is: its rule, its runbook, and the series with which it fires and with which it does not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

#: How a summary names a label of its alert.
LABEL: Final = re.compile(r"\{\{ \$labels\.(\w+) \}\}")
Series = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert of Prometheus.

    - lasts: how long the expression must hold.
    - summary: what is wrong, in one line; `{{ $labels.queue }}` and the like stand for labels.
    - means, look, fix: the runbook: what is going on, where to look, what helps.
    - fires, quiet: series of a test, a value a minute in promtool's notation, of the hours that `minutes` counts.
    - labels: those of the alert that the series `fires` raise, without the severity.
    """

    name: str
    severity: Literal["warning", "critical"]
    expr: str
    lasts: str
    summary: str
    means: str
    look: str
    fix: str
    fires: Series
    quiet: Series
    labels: Mapping[str, str] = field(default_factory=dict)
    minutes: int = 30
