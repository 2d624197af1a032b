"""The rate at which a redrive sends, by a clock of the test's own."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from joblog.services.replay.pacing import STEP_S, paced
from joblog.streams.progress import Stopped


class Clock:
    """Time passes when somebody sleeps, and while a portion is sent."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


def sent(
    count: int, per_second: float, clock: Clock, takes_s: Callable[[int], float] = lambda _n: 0.0
) -> list[tuple[float, int]]:
    """When each portion was given out, and how many items it had."""
    found = []
    for number, batch in enumerate(paced(iter(range(count)), per_second, clock=clock, sleep=clock.sleep)):
        found.append((clock.now, len(batch)))
        clock.now += takes_s(number)
    assert sum(size for _, size in found) == count
    return found


@given(per_second=st.floats(0.01, 10_000), portions=st.integers(12, 40), took=st.floats(0, 0.9))
def test_the_rate_is_what_was_asked_within_a_tenth(per_second: float, portions: int, took: float) -> None:
    count = portions * max(1, round(per_second / 10))
    clock = Clock()
    found = sent(count, per_second, clock, lambda _n: took * max(1, round(per_second / 10)) / per_second)
    before_last = count - found[-1][1]
    assert (found[-1][0] - found[0][0]) * per_second == pytest.approx(before_last, rel=0.1)


@example(per_second=100, takes=[5.0] + [0.0] * 19)
@given(per_second=st.floats(1, 10_000), takes=st.lists(st.floats(0, 5), min_size=20, max_size=20))
def test_pauses_are_not_made_up_for(per_second: float, takes: list[float]) -> None:
    portion = max(1, round(per_second / 10))
    found = sent(20 * portion, per_second, Clock(), lambda n: takes[n])
    for start, (began, _) in enumerate(found):
        within = sum(size for at, size in found[start:] if at < began + 1)
        assert within <= 1.1 * per_second + 2 * portion


def test_a_pause_is_cut_into_steps_and_can_be_stopped() -> None:
    clock, asked = Clock(), 0

    def waiting() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise Stopped("stopped")

    batches = paced(iter(range(10)), 0.01, waiting, clock, clock.sleep)
    assert next(batches) == [0]
    with pytest.raises(Stopped):
        next(batches)
    assert (len(clock.slept), max(clock.slept)) == (3, STEP_S)
