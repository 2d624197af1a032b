"""How often a function of the user's is called for one record: the same for triggers and hooks. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a function is called for a record before that is parked, and the delays between (seconds)."""

    attempts: int = 5
    delay_s: float = 1.0
    delay_max_s: float = 30.0

    def delay_after(self, attempt: int) -> float:
        """The delay after the attempt of this number (from 1): it doubles from one to the next."""
        return min(self.delay_s * 2.0 ** min(attempt - 1, 60), self.delay_max_s)
