import threading
import time

import pytest
from joblog.streams.kafka.bounded import Bounded, Hung

PATIENCE_S = 30.0


def test_calls_are_made_one_after_the_other_in_one_thread() -> None:
    bounded, seen = Bounded("t"), []
    for number in range(3):
        bounded.call(lambda number: seen.append((number, threading.get_ident())), number, timeout_s=PATIENCE_S)
    assert [number for number, _ in seen] == [0, 1, 2]
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_ident()
    bounded.close()


def test_something_is_done_while_the_call_is_under_way() -> None:
    bounded, begun, end = Bounded("t"), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        assert end.wait(PATIENCE_S)

    def meanwhile() -> None:
        assert begun.wait(PATIENCE_S)
        end.set()

    bounded.call(call, timeout_s=PATIENCE_S, meanwhile=meanwhile)
    bounded.close()


def test_what_a_call_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        Bounded("t").call(lambda: 1 / 0, timeout_s=PATIENCE_S)


def test_a_call_that_hangs_is_left_behind_and_the_next_goes_through() -> None:
    bounded, end, ended = Bounded("t"), threading.Event(), threading.Event()

    def hang() -> None:
        end.wait(PATIENCE_S)
        ended.set()

    with pytest.raises(Hung, match=r"hang has not returned for 0\.01 s"):
        bounded.call(hang, timeout_s=0.01)
    done: list[int] = []
    bounded.call(done.append, 1, timeout_s=PATIENCE_S)
    assert done == [1]
    assert not ended.is_set()
    assert bounded.left_behind == 1
    end.set()
    assert ended.wait(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while bounded.left_behind:
        assert time.monotonic() < deadline
    bounded.close()
    bounded.close()
