"""Which lanes a worker serves, as it is told of further ones."""

from hypothesis import given
from hypothesis import strategies as st
from joblog.services.worker.options import WorkerOptions
from joblog.services.worker.served_lanes import LEAVING_S, SERVED_S, ServedLanes
from joblog.streams.contract.ids import lane_of_queue

LANES = 8
OPTIONS = WorkerOptions(queues=("a", "c"), lanes=LANES)
HOME_A, HOME_B = (lane_of_queue(queue, LANES) for queue in OPTIONS.queues)
FURTHER = next(lane for lane in range(LANES) if lane not in (HOME_A, HOME_B))


def test_a_further_lane_is_served_while_it_is_told_then_without_the_queue_and_then_left() -> None:
    served = ServedLanes(OPTIONS)
    assert served.turn(0.0, ()) == ([], [])
    served.tell("a", FURTHER, 0.0)
    assert served.turn(0.0, ()) == ([FURTHER], [])
    assert served.queues == {HOME_A: ("a",), FURTHER: ("a",), HOME_B: ("c",)}
    served.tell("a", FURTHER, 10.0)
    assert served.turn(SERVED_S + 9.0, ()) == ([], [])
    assert served.queues[FURTHER] == ("a",)
    assert served.turn(SERVED_S + 10.0, ()) == ([], [])
    assert served.queues[FURTHER] == ()
    # Where it holds a job, it has to renew its lease.
    assert served.turn(SERVED_S + LEAVING_S + 10.0, {FURTHER}) == ([], [])
    assert served.turn(SERVED_S + LEAVING_S + 10.0, ()) == ([], [FURTHER])
    assert served.queues == OPTIONS.queues_of_lanes


def test_a_queue_is_served_in_the_lane_of_another_one_too() -> None:
    served = ServedLanes(OPTIONS)
    served.tell("c", HOME_A, 0.0)
    assert served.turn(0.0, ()) == ([], [])
    assert served.queues == {HOME_A: ("a", "c"), HOME_B: ("c",)}
    assert served.turn(SERVED_S + LEAVING_S, ()) == ([], [])
    assert served.queues == OPTIONS.queues_of_lanes


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, LANES + 1), st.floats(0, 200))))
def test_its_own_lanes_are_always_served_and_no_queue_or_lane_that_it_has_not(
    told: list[tuple[str, int, float]],
) -> None:
    served, known = ServedLanes(OPTIONS), set(OPTIONS.queues_of_lanes)
    for queue, lane, at in sorted(told, key=lambda one: one[2]):
        served.tell(queue, lane, at)
        new, left = served.turn(at, ())
        known = (known | set(new)) - set(left)
        assert known == set(served.queues)
        assert all(
            queue in served.queues[lane] for lane, queues in OPTIONS.queues_of_lanes.items() for queue in queues
        )
        assert {one for queues in served.queues.values() for one in queues} == {"a", "c"}
        assert set(served.queues) <= set(range(LANES))
