from hypothesis import given
from hypothesis import strategies as st
from joblog.services.worker.offers import LaneLoad, offers

COUNT = st.integers(0, 50)
LOAD = st.builds(LaneLoad, COUNT, COUNT, COUNT, st.booleans())
LOADS = st.lists(LOAD, min_size=1, max_size=5)


def test_every_lane_is_offered_all_slots_and_the_prefetch() -> None:
    assert offers(20, 5, [LaneLoad(running=20), LaneLoad(waiting=20)]) == [25, 25]


def test_slots_that_are_blocked_are_not_offered() -> None:
    assert offers(18, 5, [LaneLoad()]) == [23]


def test_without_a_usable_slot_nothing_is_offered_not_even_the_prefetch() -> None:
    assert offers(0, 100, [LaneLoad(), LaneLoad(is_lowered=True)]) == [0, 0]


def test_a_lowered_lane_is_offered_what_runs_and_what_could_start() -> None:
    assert offers(20, 100, [LaneLoad(running=12, is_lowered=True)]) == [20]


def test_a_lowered_lane_may_let_wait_what_would_start_in_time() -> None:
    assert offers(20, 1000, [LaneLoad(running=20, started_lately=200, is_lowered=True)]) == [220]


def test_a_lane_in_front_of_a_lowered_one_keeps_its_offer() -> None:
    assert offers(20, 0, [LaneLoad(running=20), LaneLoad(is_lowered=True)]) == [20, 0]


def test_a_lane_behind_a_lowered_one_leaves_the_next_slot_to_it() -> None:
    assert offers(20, 0, [LaneLoad(is_lowered=True), LaneLoad(running=20)]) == [0, 19]
    # One of the lane behind has ended: it does not get the slot, the one in front does.
    assert offers(20, 0, [LaneLoad(is_lowered=True), LaneLoad(running=19)]) == [1, 19]
    # It took it, and is offered no more until the next one ends.
    assert offers(20, 0, [LaneLoad(running=1, is_lowered=True), LaneLoad(running=19)]) == [1, 18]


@given(COUNT, COUNT, LOADS)
def test_no_offer_is_negative_or_more_than_everything(capacity: int, prefetch: int, loads: list[LaneLoad]) -> None:
    assert all(0 <= offer <= capacity + prefetch for offer in offers(capacity, prefetch, loads))


@given(st.integers(1, 50), COUNT, LOADS)
def test_lanes_in_front_of_all_lowered_ones_get_everything(
    capacity: int, prefetch: int, loads: list[LaneLoad]
) -> None:
    lowered = [load.is_lowered for load in loads]
    front = lowered.index(True) if any(lowered) else len(loads)
    assert offers(capacity, prefetch, loads)[:front] == [capacity + prefetch] * front


@given(st.integers(1, 50), COUNT, st.lists(st.integers(0, 10), min_size=1, max_size=5))
def test_a_worker_with_a_free_slot_always_offers_one_to_a_lane_that_had_to_give_back(
    capacity: int, prefetch: int, running: list[int]
) -> None:
    loads = [LaneLoad(running=n, is_lowered=True) for n in running]
    has_room = sum(running) < capacity
    assert (offers(capacity, prefetch, loads)[0] > running[0]) == has_room or running[0] >= capacity + prefetch


@given(st.integers(1, 50), LOADS)
def test_lowering_a_lane_never_raises_an_offer(capacity: int, loads: list[LaneLoad]) -> None:
    raised = [LaneLoad(load.running, load.waiting, load.started_lately) for load in loads]
    before, after = offers(capacity, 10, raised), offers(capacity, 10, loads)
    assert all(now <= then for now, then in zip(after, before, strict=True))
