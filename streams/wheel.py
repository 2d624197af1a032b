"""The timing wheel in the log: which tier a timer waits in."""

from datetime import timedelta
from typing import Final

from joblog.streams.topics import DELAY_TIERS

#: How long a record waits in each tier, in milliseconds, longest first.
_WAITS_MS: Final = sorted(
    ((wait // timedelta(milliseconds=1), tier) for tier, wait in DELAY_TIERS.items()), reverse=True
)


def tier_for(remaining_ms: float) -> str:
    """The tier for a timer that is due in `remaining_ms`: the longest that does not wait longer than that.

    Whatever is due within a minute, or was due already, goes to `now`.
    """
    return next((tier for wait_ms, tier in _WAITS_MS if wait_ms <= remaining_ms), "now")
