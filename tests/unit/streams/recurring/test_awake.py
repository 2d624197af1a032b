import asyncio

import pytest
from joblog.streams.recurring.awake import ASLEEP_S, Awake, Slept


class Hand:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_a_process_that_looks_in_time_is_awake() -> None:
    hand = Hand()
    awake = Awake(hand)
    for _ in range(100):
        hand.at += ASLEEP_S
        awake.look()


def test_after_a_pause_whoever_looks_is_told_however_late() -> None:
    hand = Hand()
    awake = Awake(hand)
    hand.at += ASLEEP_S + 0.1
    for _ in range(3):
        with pytest.raises(Slept, match=r"paused for 4\.1 s"):
            awake.look()
        hand.at += 0.1


def test_a_pause_is_noticed_while_nobody_but_the_watch_looks() -> None:
    hand = Hand()
    awake = Awake(hand)

    async def paused() -> None:
        watch = asyncio.create_task(awake.stay())
        await asyncio.sleep(0)
        hand.at += ASLEEP_S + 1
        await watch  # ends by itself, and without an error that nobody would take

    asyncio.run(paused())
    with pytest.raises(Slept):
        awake.look()
