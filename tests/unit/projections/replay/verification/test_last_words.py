"""Which rows of `workers` the events allow."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from joblog.projections.projector.decode import WorkerFact, read_event
from joblog.projections.projector.event_batch import Record
from joblog.projections.replay.verification.last_words import Worker, fits, newer

from tests.support.projection_events import BEGINNING, worker_event


def last(*said: tuple[int, int]) -> dict[int, Worker]:
    """What a worker said last, of events by lane and time in seconds."""
    found: dict[int, Worker] = {}
    for offset, (lane, second) in enumerate(said):
        value = worker_event("worker.alive", at=BEGINNING + timedelta(seconds=second))
        fact = read_event(value, None, 0)
        assert isinstance(fact, WorkerFact)
        found[lane] = newer(found.get(lane), Record(lane, offset, 0, value), fact)
    return found


def row(words: dict[int, Worker], lane: int) -> Sequence[Any]:
    return tuple(words[lane].row)


def test_of_two_lanes_the_later_one_is_in_the_table() -> None:
    words = last((0, 10), (1, 20))
    assert fits(row(words, 1), words)
    assert not fits(row(words, 0), words)


def test_of_two_that_end_at_the_same_time_either_may_be() -> None:
    words = last((0, 10), (1, 10))
    assert fits(row(words, 0), words)
    assert fits(row(words, 1), words)


def test_the_last_event_of_a_lane_counts_though_its_time_is_behind_an_earlier_one() -> None:
    """Lane 0 was ahead of lane 1 when its event at 25 s was applied, and its own next one replaces that."""
    words = last((1, 20), (0, 25), (0, 15))
    assert fits(row(words, 0), words)


def test_a_row_of_a_lane_that_never_was_the_latest_does_not_fit() -> None:
    words = last((0, 25), (0, 15), (1, 30))
    assert not fits(row(words, 0), words)
    assert fits(row(words, 1), words)


def test_an_event_that_is_not_the_last_of_its_lane_does_not_fit() -> None:
    before, words = last((0, 10)), last((0, 10), (0, 20))
    assert not fits(row(before, 0), words)
    assert not fits((7, *row(words, 0)[1:]), words)
