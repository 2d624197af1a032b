"""What the owner of a queue's limit gives out, and to whom."""

from joblog.streams.contract.relations import LimitKind
from joblog.streams.lane.limits.gate import Said
from joblog.streams.lane.limits.queue_owner import Ownership, QueueOwner

OWN, OTHER, THIRD = 0, 1, 2
NOW = 1_800_000_000_000


def owner(kind: LimitKind, capacity: int, interval_ms: int = 0) -> QueueOwner:
    made = QueueOwner(Ownership(kind, 0, 0), OWN)
    anew(made, kind, capacity, interval_ms)
    return made


def anew(one: QueueOwner, kind: LimitKind, capacity: int, interval_ms: int = 0, now_ms: int = NOW) -> None:
    one.begin(kind, capacity, interval_ms, (OWN, OTHER, THIRD), now_ms)
    join(one)


def join(one: QueueOwner) -> None:
    for lane in (OWN, OTHER, THIRD):
        assert one.joined(lane, one.record.number, 0)


def say(one: QueueOwner, lane: int, number: int | None = None, **said: object) -> bool:
    return one.said(lane, one.record.number if number is None else number, Said(**said))  # type: ignore[arg-type]


def test_lanes_get_units_one_by_one_in_the_order_in_which_they_asked() -> None:
    one = owner(LimitKind.SEMAPHORE, 5)
    say(one, THIRD, more=4)
    say(one, OTHER, more=2)
    assert one.settle(NOW) == {THIRD: (0, 0, 0), OTHER: (0, 0)}
    assert one.record.line == [THIRD]


def test_nothing_is_given_out_before_all_lanes_have_joined() -> None:
    one = owner(LimitKind.SEMAPHORE, 5)
    one.begin(LimitKind.SEMAPHORE, 3, 0, (), NOW)
    assert not one.joined(OTHER, one.record.number - 1, 1)
    assert one.joined(OTHER, one.record.number, 2)
    assert one.joined(OWN, one.record.number, 0)
    assert not one.joined(OWN, one.record.number, 0)
    say(one, OTHER, more=2)
    assert one.settle(NOW) == {}
    assert one.take(NOW) is None
    assert one.joined(THIRD, one.record.number, 0)
    assert one.settle(NOW) == {OTHER: (0,)}


def test_a_lane_that_keeps_its_units_is_told_when_others_wait() -> None:
    one = owner(LimitKind.SEMAPHORE, 2)
    say(one, OTHER, more=2)
    assert one.settle(NOW) == {OTHER: (0, 0)}
    assert not one.others_wait(OTHER)
    say(one, THIRD, more=1)
    assert one.settle(NOW) == {OTHER: ()}
    assert one.others_wait(OTHER)
    assert one.settle(NOW) == {}


def test_an_owner_does_not_let_its_own_lane_overtake() -> None:
    one = owner(LimitKind.SLIDING_WINDOW, 1, 1_000)
    (from_ms,) = [one.take(NOW)]
    assert from_ms is not None
    say(one, OWN, used=(from_ms,), at_ms=NOW)
    say(one, OTHER, more=1)
    assert one.settle(NOW) == {}
    assert one.take(NOW + 1_000) is None
    assert one.settle(NOW + 1_000) == {OTHER: (NOW + 1_000,)}


def test_the_permits_of_a_rate_that_lanes_have_keep_their_times_when_it_is_set_anew() -> None:
    one = owner(LimitKind.SLIDING_WINDOW, 1, 1_000)
    say(one, OTHER, more=1)
    ((from_ms,),) = one.settle(NOW).values()
    say(one, OTHER, used=(from_ms,), at_ms=NOW, more=1)
    assert one.settle(NOW + 600) == {OTHER: (NOW + 1_000,)}
    anew(one, LimitKind.SLIDING_WINDOW, 1, 1_000, NOW + 600)
    assert one.take(NOW + 700) is None
    assert one.take(NOW + 1_000) is not None


def test_a_start_counts_although_its_lane_has_not_heard_of_the_last_setting() -> None:
    one = owner(LimitKind.SLIDING_WINDOW, 1, 1_000)
    say(one, OTHER, more=1)
    ((from_ms,),) = one.settle(NOW).values()
    before = one.record.number
    one.begin(LimitKind.SLIDING_WINDOW, 1, 1_000, (), NOW)
    assert not say(one, OTHER, before, used=(from_ms,), at_ms=NOW + 10)
    join(one)
    assert one.take(NOW + 1_000) is None
    assert one.take(NOW + 1_010) is not None


def test_an_owner_that_is_loaded_again_remembers_what_it_has_given_out() -> None:
    one = owner(LimitKind.TOKEN_BUCKET, 2, 1_000)
    say(one, OTHER, more=2)
    assert [len(times) for times in one.settle(NOW).values()] == [2]
    say(one, OTHER, more=1)
    loaded = QueueOwner(one.kept(), OWN)
    assert loaded.take(NOW) is None
    assert loaded.wake_ms == 0  # somebody is in line
    assert loaded.settle(NOW) == {}
