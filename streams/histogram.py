"""The histogram of prometheus-client, for code that has many amounts at a time."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection

from prometheus_client import Histogram as SingleHistogram


class Histogram(SingleHistogram):
    """A histogram that also takes many observations at once, for a quarter of what each costs alone."""

    def observe_all(self, amounts: Collection[float]) -> None:
        """As `observe` with each of them."""
        self._sum.inc(sum(amounts))
        for bucket, count in Counter(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
            self._buckets[bucket].inc(count)
