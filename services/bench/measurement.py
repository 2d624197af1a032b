"""The result of a benchmark: one figure, and how it was measured."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Measurement:
    """`value` in `unit`; `run` says what was run: how many jobs, lanes, slots."""

    bench: str
    metric: str
    value: float
    unit: str
    run: dict[str, Any]

    def row(self) -> dict[str, Any]:
        return {**asdict(self), "value": float(f"{self.value:.4g}")}


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of all do not exceed (nearest rank)."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]
