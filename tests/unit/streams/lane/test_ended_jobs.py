from joblog.streams.contract.states import State
from joblog.streams.lane.ended_jobs import EndedJobs


def test_an_end_is_remembered_with_its_state_and_version() -> None:
    ended = EndedJobs(2)
    ended.add("a", State.SUCCEEDED, 3)
    assert ended.get("a") == (State.SUCCEEDED, 3)
    assert ended.get("b") is None


def test_the_oldest_end_is_forgotten_when_there_are_too_many() -> None:
    ended = EndedJobs(2)
    for number, name in enumerate("abc"):
        ended.add(name, State.DELETED, number)
    assert [ended.get(name) for name in "abc"] == [None, (State.DELETED, 1), (State.DELETED, 2)]
    assert len(ended) == 2


def test_a_job_that_lives_again_is_not_remembered_as_ended() -> None:
    ended = EndedJobs(2)
    ended.add("a", State.DELETED, 2)
    ended.remove("a")
    ended.remove("never known")
    assert ended.get("a") is None
    assert len(ended) == 0


def test_a_job_that_ended_again_is_as_young_as_its_last_end() -> None:
    ended = EndedJobs(2)
    ended.add("again", State.DELETED, 2)
    ended.remove("again")
    ended.add("old", State.SUCCEEDED, 3)
    ended.add("again", State.SUCCEEDED, 5)
    ended.add("young", State.SUCCEEDED, 3)
    assert ended.get("old") is None
    assert ended.get("again") == (State.SUCCEEDED, 5)


def test_an_end_told_twice_takes_one_place() -> None:
    ended = EndedJobs(2)
    ended.add("a", State.FAILED, 3)
    ended.add("b", State.SUCCEEDED, 3)
    ended.add("a", State.DELETED, 4)
    assert (ended.get("a"), ended.get("b")) == ((State.DELETED, 4), (State.SUCCEEDED, 3))


def test_a_memory_of_nothing_forgets_at_once() -> None:
    ended = EndedJobs(0)
    ended.add("a", State.DELETED, 2)
    assert len(ended) == 0
