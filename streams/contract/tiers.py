"""The tiers of the timing wheel: how long a record waits in each, and which one a timer goes to."""

from datetime import timedelta
from typing import Final

from joblog.streams.contract.topics import DELAY_TIERS

#: How long a record waits in each tier, in milliseconds.
WAITS_MS: Final = {tier: wait // timedelta(milliseconds=1) for tier, wait in DELAY_TIERS.items()}

_LONGEST_FIRST: Final = sorted(((wait_ms, tier) for tier, wait_ms in WAITS_MS.items()), reverse=True)


def tier_for(remaining_ms: float) -> str:
    """The tier for a timer that is due in `remaining_ms`: the longest that does not wait longer than that.

    Whatever is due within a minute, or was due already, goes to `now`.
    """
    return next((tier for wait_ms, tier in _LONGEST_FIRST if wait_ms <= remaining_ms), "now")
