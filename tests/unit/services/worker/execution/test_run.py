"""The leases of a worker's lanes, by a clock that goes on in a suspended machine."""

import time

from hypothesis import given
from hypothesis import strategies as st
from joblog.services.worker.execution.run import Leases, clock

LASTS_S = 12.0
INSTANTS = st.floats(0, 100)


def test_a_lease_is_held_for_its_time_from_when_its_renewal_was_sent() -> None:
    leases = Leases((1, 2), LASTS_S, now=100.0)
    assert leases.is_held(1, 100.0 + LASTS_S)
    assert not leases.is_held(1, 100.1 + LASTS_S)
    leases.renew(1, sent_at=105.0)
    assert leases.is_held(1, 105.0 + LASTS_S)
    assert leases.over(105.0 + LASTS_S) == {2}
    assert leases.over(106.0 + LASTS_S) == {1, 2}


@given(st.lists(INSTANTS), INSTANTS)
def test_the_latest_renewal_counts_in_whatever_order_they_are_acknowledged(sent: list[float], now: float) -> None:
    leases = Leases((1,), LASTS_S, now=0.0)
    for sent_at in sent:
        leases.renew(1, sent_at)
    assert leases.is_held(1, now) == (now - max([0.0, *sent]) <= LASTS_S)
    assert leases.over(now) == (set() if leases.is_held(1, now) else {1})


def test_the_clock_of_leases_goes_on_while_the_machine_is_suspended() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock() <= time.clock_gettime(time.CLOCK_BOOTTIME)
