"""The wheel turned by hand: a timer's way through the tiers, and a shelf against the simplest one there could be."""

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from joblog.streams.contract.topics import WAITS_MS, tier_for
from joblog.streams.delays.wheel import HOP_MS_MIN, NOW_MS_MAX, Held, Shelf, leaves_ms

DAY_MS = 86_400_000
HUNDRED_YEARS_MS = 36_525 * DAY_MS
START_MS = 1_800_000_000_000
# Within 9 x 1 m, 5 x 10 m, 5 x 1 h, 3 x 6 h and 6 x 1 d every time below 7 d can be waited for; then the firing.
HOPS_BELOW_7D = 9 + 5 + 5 + 3 + 6 + 1

delays_ms = st.one_of(
    st.integers(-DAY_MS, 8 * DAY_MS),
    st.integers(0, HUNDRED_YEARS_MS),
    st.builds(int.__add__, st.sampled_from(sorted(WAITS_MS.values())), st.integers(-3, 3)),
)


def way(delay_ms: int, reading_ms: Iterator[int]) -> list[tuple[str, int]]:
    """The tiers a timer passes and when it leaves each; the last entry is its firing."""
    due_ms = now_ms = START_MS
    due_ms += delay_ms
    passed = []
    while True:
        tier = tier_for(due_ms - now_ms)
        appended_ms = now_ms
        read_ms = appended_ms + next(reading_ms)
        now_ms = max(read_ms, leaves_ms(tier, due_ms, appended_ms, read_ms))
        passed.append((tier, now_ms))
        if now_ms >= due_ms:
            return passed


def forever(value: int) -> Iterator[int]:
    while True:
        yield value


@given(delays_ms)
def test_every_timer_is_fired_after_a_bounded_number_of_hops(delay_ms: int) -> None:
    passed = way(delay_ms, forever(0))
    assert len(passed) <= HOPS_BELOW_7D + max(delay_ms, 0) // WAITS_MS["7d"]


@given(delays_ms)
def test_a_timer_that_is_read_at_once_is_fired_exactly_when_it_is_due(delay_ms: int) -> None:
    assert way(delay_ms, forever(0))[-1][1] == START_MS + max(delay_ms, 0)


@given(st.integers(-DAY_MS, 30 * DAY_MS), st.lists(st.integers(0, DAY_MS), min_size=1, max_size=50))
def test_a_timer_that_is_read_late_is_never_early_nor_later_than_the_last_reading(
    delay_ms: int, late_ms: list[int]
) -> None:
    def readings() -> Iterator[int]:
        yield from late_ms
        yield from forever(0)

    *_, (_, fired_ms) = way(delay_ms, readings())
    assert START_MS + delay_ms <= fired_ms <= START_MS + max(delay_ms, 0) + max(late_ms)


@given(st.sampled_from(sorted(WAITS_MS)), delays_ms, st.integers(-DAY_MS, DAY_MS))
def test_whatever_the_brokers_clock_says_no_timer_turns_faster_than_a_hop_nor_stays_beyond_its_time(
    tier: str, delay_ms: int, skew_ms: int
) -> None:
    due_ms = START_MS + delay_ms
    left_ms = leaves_ms(tier, due_ms, START_MS + skew_ms, START_MS)
    assert left_ms <= due_ms
    remaining_ms = due_ms - max(left_ms, START_MS)
    if remaining_ms > 0 and tier_for(remaining_ms) == tier:
        assert left_ms >= START_MS + HOP_MS_MIN
    if tier == "now":
        assert left_ms == due_ms or delay_ms > NOW_MS_MAX


class ShelfBesideItsModel(RuleBasedStateMachine):
    """Any order of adding, taking, finishing and putting back: what the shelf says is what a plain list says."""

    @initialize(capacity=st.integers(1, 8))
    def start(self, capacity: int) -> None:
        self.shelf = Shelf[str](capacity)
        self.held: list[Held[str]] = []
        self.taken: list[Held[str]] = []
        self.next_offset = 0
        self.now_ms = 0

    @rule(gap=st.integers(0, 3), wait_ms=st.integers(-5, 20))
    def add(self, gap: int, wait_ms: int) -> None:
        record = Held(self.now_ms + wait_ms, self.next_offset + gap, f"timer {self.next_offset}")
        self.shelf.add(record.offset, record.leaves_ms, record.item)
        self.held.append(record)
        self.next_offset = record.offset + 1

    @rule(step_ms=st.integers(0, 10))
    def take(self, step_ms: int) -> None:
        self.now_ms += step_ms
        expected = min((each for each in self.held if each.leaves_ms <= self.now_ms), default=None)
        assert self.shelf.take(self.now_ms) == expected
        if expected is not None:
            self.held.remove(expected)
            self.taken.append(expected)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from(self.taken))
        self.taken.remove(record)
        self.shelf.done(record.offset)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), wait_ms=st.integers(0, 5))
    def put_back(self, data: st.DataObject, wait_ms: int) -> None:
        record = data.draw(st.sampled_from(self.taken))
        self.taken.remove(record)
        self.shelf.put_back(record, self.now_ms + wait_ms)
        self.held.append(record._replace(leaves_ms=self.now_ms + wait_ms))

    @invariant()
    def agrees(self) -> None:
        undone = [record.offset for record in self.held + self.taken]
        assert self.shelf.position == min(undone, default=self.next_offset or None)
        assert self.shelf.next_ms == min((record.leaves_ms for record in self.held), default=None)
        assert len(self.shelf) == len(self.held)


TestShelfBesideItsModel = ShelfBesideItsModel.TestCase
TestShelfBesideItsModel.settings = settings(max_examples=100, stateful_step_count=40)
