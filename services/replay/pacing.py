"""Items given out not faster than so many a second; what stood still for a while does not make up for it."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

#: Items are given out in so many portions a second.
PORTIONS_A_SECOND: Final = 10
#: A pause is cut into steps, so that who waits can be stopped.
STEP_S: Final = 0.1


def paced(
    items: Iterator[T],
    per_second: float,
    waiting: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[list[T]]:
    """Portions of the items; `waiting` is called in pauses, and raises to end them."""
    portion = max(1, round(per_second / PORTIONS_A_SECOND))
    next_s = clock()
    while batch := list(islice(items, portion)):
        while (pause_s := next_s - clock()) > 0:
            waiting()
            sleep(min(pause_s, STEP_S))
        yield batch
        next_s = max(next_s + len(batch) / per_second, clock())
