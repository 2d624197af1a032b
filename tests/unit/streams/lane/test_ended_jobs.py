from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract.states import State
from joblog.streams.lane.ended_jobs import BLOCK_MAX, Block, EndedJobs

from tests.support.scene import Scene, create, id_of, run_failed, succeeded, worker


class Written:
    """A memory and the records that it has written, compacted."""

    def __init__(self, size: int) -> None:
        self.ended = EndedJobs(size)
        self.records: dict[str, Block] = {}

    def turn(self, *names: str, version: int = 3) -> None:
        """These jobs end in one turn."""
        for name in names:
            self.ended.add(name, State.SUCCEEDED, version)
        for key, block in self.ended.write().items():
            if block is None:
                del self.records[key]
            else:
                self.records[key] = block

    def reloaded(self, *live: str) -> EndedJobs:
        ended = EndedJobs(self.ended.size)
        ended.load({int(key): block for key, block in self.records.items()}, set(live))
        return ended


def test_an_end_is_remembered_with_its_state_and_version() -> None:
    ended = EndedJobs(2)
    ended.add("a", State.SUCCEEDED, 3)
    assert ended.get("a") == (State.SUCCEEDED, 3)
    assert ended.get("b") is None


def test_the_oldest_ends_are_forgotten_when_newer_turns_hold_enough() -> None:
    written = Written(2)
    for name in "abc":
        written.turn(name)
    assert [written.ended.get(name) for name in "abc"] == [None, (State.SUCCEEDED, 3), (State.SUCCEEDED, 3)]
    assert len(written.ended) == len(written.records) == 2


def test_a_turn_is_forgotten_as_a_whole() -> None:
    written = Written(2)
    written.turn("a", "b", "c")
    written.turn("d")
    assert len(written.ended) == 4
    written.turn("e")
    assert sorted(written.reloaded()._known) == sorted(written.ended._known) == ["d", "e"]


def test_a_job_that_lives_again_is_not_remembered_as_ended() -> None:
    written = Written(2)
    written.turn("a", "b")
    written.ended.remove("a")
    written.ended.remove("never known")
    assert written.ended.get("a") is None
    reloaded = written.reloaded("a")
    assert (reloaded.get("a"), reloaded.get("b")) == (None, (State.SUCCEEDED, 3))


def test_a_job_that_ended_again_is_as_young_as_its_last_end() -> None:
    written = Written(2)
    written.turn("again")
    written.ended.remove("again")
    written.turn("old")
    written.turn("again", version=5)
    written.turn("young")
    for ended in (written.ended, written.reloaded()):
        assert ended.get("old") is None
        assert ended.get("again") == (State.SUCCEEDED, 5)


def test_a_memory_of_nothing_writes_nothing() -> None:
    written = Written(0)
    written.turn("a")
    assert len(written.ended) == 0
    assert written.records == {}


def test_a_large_turn_is_several_records() -> None:
    written = Written(10_000)
    written.turn(*map(str, range(2 * BLOCK_MAX + 1)))
    assert [len(block) for block in written.records.values()] == [BLOCK_MAX, BLOCK_MAX, 1]


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=6), max_size=30), st.integers(1, 20))
def test_what_is_reloaded_is_what_was_remembered_and_no_end_is_forgotten_early(
    turns: list[list[int]], size: int
) -> None:
    written, order, live = Written(size), [], set[str]()
    for version, turn in enumerate(turns):
        names = [str(number) for number in turn]
        for name in names:
            if name in order:
                written.ended.remove(name)  # it was requeued, and ended again
                order.remove(name)
        written.turn(*names, version=version)
        order += names
    reloaded = written.reloaded(*live)
    assert reloaded._known == written.ended._known
    youngest: list[str] = []
    for turn in reversed(turns):
        if len(youngest) >= size:
            break
        youngest += [str(number) for number in turn]
    assert all(written.ended.get(name) is not None for name in youngest[:size])


def test_ended_jobs_are_refused_after_a_takeover_however_many_events_they_left() -> None:
    scene = Scene().given(worker(slots=2))
    for name in "abcdefgh":
        scene.given(create(name))
        for lease in (2, 5, 8):  # two failures that are retried at once leave many events
            scene.given(run_failed(name, lease) if lease < 8 else succeeded(name, lease))
    scene.reloaded()
    assert all(scene.lane.ended.get(id_of(name)) or id_of(name) in scene.lane.jobs for name in "abcdefgh")
