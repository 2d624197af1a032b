"""How fast time goes by in rules: as in operation, or faster, for a test that cannot wait for hours.

Durations are divided, and all else of an expression stays: the metrics, labels, operators and limits. These are
durations: the ranges in brackets, `for`, and the age at the end of an expression that begins with `time() -`, or
before the `unless` with which it ends.
"""

import math
import re
from dataclasses import dataclass
from typing import Final

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_RANGE: Final = re.compile(r"\[(\d+)([smh])\]")
_AGE: Final = re.compile(r"^(time\(\) - .+? > )(\d+)( unless .+)?$")


@dataclass(frozen=True, slots=True)
class Pace:
    """By how much durations are divided.

    - range_min_s: what no range falls below: a rate needs several scrapes.
    - age_min_s: what no age falls below: while all is well, something is a few scrapes old.
    """

    times: int = 1
    range_min_s: int = 15
    age_min_s: int = 5

    def expr(self, text: str) -> str:
        """An expression with its ranges, and the age that it looks for."""
        if self.times == 1:
            return text
        shorter = _RANGE.sub(lambda match: f"[{self._divided(match[1], match[2], self.range_min_s)}s]", text)
        return _AGE.sub(
            lambda match: f"{match[1]}{self._divided(match[2], 's', self.age_min_s)}{match[3] or ''}", shorter
        )

    def lasts(self, text: str) -> str:
        """How long an expression must hold."""
        return text if self.times == 1 else f"{self._divided(text[:-1], text[-1], 0)}s"

    def _divided(self, number: str, unit: str, least: int) -> int:
        return max(math.ceil(int(number) * _SECONDS[unit] / self.times), least)


AS_IN_OPERATION: Final = Pace()
