"""What-if over a whole log: what becomes of continuations, whichever lane comes first, and how it goes on."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.retry import Curve, OnExceeded, Retry
from joblog.streams.contract.states import ContinueOn
from joblog.streams.contract.timestamps import format_time
from joblog.streams.errors import InvalidData
from joblog.streams.lane.filters import FilterChain, RetryFilter
from joblog.streams.progress import Stopped, silent
from joblog.streams.replay.asking import Asking
from joblog.streams.replay.outcomes import UNKNOWN
from joblog.streams.replay.question import Chosen, Question
from joblog.streams.replay.stored import StoredEvent, stored_event
from joblog.streams.replay.what_if import Beyond, WhatIf
from msgspec import structs

from tests.support.scene import NEVER, Pause, Scene, Tick, create, id_of, name_of, run_failed, succeeded, worker

ONCE = Retry(attempts=1, curve=Curve.FIXED, delays_s=(60.0,))
DROPPED = Retry(attempts=0, on_exceeded=OnExceeded.DELETE)
DUE = Tick(66_000)  # electors wait 5 s for the timer


class Log:
    """Stands in for an EventReader: the events of some lanes, read in portions of two."""

    def __init__(self, *lanes: list[StoredEvent]) -> None:
        self.topic, self._lanes, self.lanes = "t.events", lanes, len(lanes)
        self.unreadable = 0
        self.reads: list[int] = []

    def cluster(self) -> str:
        return "c"

    def bounds(self, lane: int, _from_ms: int | None = None) -> tuple[int, int]:
        return 0, len(self._lanes[lane])

    def facts(self, lane: int, start: int, end: int, progress: Callable[[int], object]) -> Iterator[StoredEvent]:
        self.reads.append(start)
        for place in range(start, end, 2):
            portion = self._lanes[lane][place : min(place + 2, end)]
            yield from portion
            progress(len(portion))


def happened(*turns: Sequence[Any]) -> list[StoredEvent]:
    """The events of what comes in, turn by turn; what lanes report to each other comes in at once."""
    scene, found = Scene(), []
    there = worker(tasks=("t", "clean"))

    def note() -> None:
        for key, kind, event_id, data, cause, _ in scene.out.events:
            value = encode(
                wire.CloudEvent("1.0", event_id, "/l", kind, key, format_time(scene.now_ms), None, cause, None, data)
            )
            if (stored := stored_event(value)) is not None:
                found.append(stored)

    for turn in turns:
        scene.when(there, *turn, there)
        note()
        while scene.out.reports:
            scene.when(*(report for _, _, report in scene.out.reports), there)
            note()
    return found


def ends(
    directory: Path, log: Log, retry: Retry, beyond: Beyond = Beyond.AS_RECORDED, told: Any = silent, **chosen: Any
) -> tuple[dict[str, tuple[str, str]], dict[str, Any]]:
    """How each job ended and would end, and the report."""
    asking = Asking(log, question(retry, beyond, **chosen), directory, told)  # type: ignore[arg-type]
    try:
        asking.run()
    finally:
        asking.close()
    asking.discard()
    report = asking.report()
    found = {name_of(job): (row["recorded"], row["simulated"]) for row in report["ends"] for job in row["samples"]}
    return found, report


def question(retry: Retry, beyond: Beyond = Beyond.AS_RECORDED, **chosen: Any) -> Question:
    chain = FilterChain([RetryFilter(lambda: 0.0)])
    asked = {"retry": str(retry), **chosen}
    kinds = WhatIf(chain, retry, beyond), WhatIf(chain, None, beyond)
    return Question(*kinds, Chosen(**chosen), Counter(), whole=False, asked=asked)


def child(name: str, parent: str, on: ContinueOn = ContinueOn.SUCCEEDED, **fields: Any) -> wire.CreateJob:
    return structs.replace(create(name, **fields), parent=wire.Parent(id_of(parent), on))


def recovered() -> list[StoredEvent]:
    """a succeeds with its retry, then its continuation b, then c, which follows b; d waits for a to fail."""
    return happened(
        (create("a", retry=ONCE), child("b", "a"), child("c", "b"), child("d", "a", ContinueOn.FAILED)),
        (Pause(2_000), run_failed("a", 2)),
        (DUE,),
        (Pause(2_000), succeeded("a", 6)),
        (Pause(2_000), succeeded("b", 3)),
        (Pause(2_000), succeeded("c", 3)),
    )


def dropped() -> list[StoredEvent]:
    """a fails and is deleted, and so are b, which follows it, and c, which follows b."""
    return happened(
        (create("a", retry=DROPPED), child("b", "a"), child("c", "b")), (Pause(2_000), run_failed("a", 2))
    )


def test_continuations_wait_in_vain_for_a_parent_that_would_have_failed(tmp_path: Path) -> None:
    found, report = ends(tmp_path, Log(recovered()), NEVER)
    assert found == {
        "a": ("Succeeded", "Failed"),
        "b": ("Succeeded", "Awaiting"),
        "c": ("Succeeded", "Awaiting"),
        "d": ("Deleted", UNKNOWN),
    }
    assert report["changed"] == 4
    assert (report["continuations_of_changed"], report["continuations_changed"]) == (3, 3)
    assert report["would_have_run_outcome_unknown"] == 1
    assert report["runs"] == {"recorded": 4, "simulated": 1, "saved": 3, "added": 0}


def test_nothing_changes_for_continuations_if_their_parents_end_as_they_did(tmp_path: Path) -> None:
    found, report = ends(tmp_path, Log(recovered()), ONCE)
    assert all(recorded == simulated for recorded, simulated in found.values())
    assert (report["jobs"], report["changed"], report["continuations_of_changed"]) == (4, 0, 0)


def test_a_continuation_that_never_ran_has_an_unknown_outcome_and_so_has_what_follows_it(tmp_path: Path) -> None:
    again = structs.replace(ONCE, on_exceeded=OnExceeded.FAIL)
    found, _ = ends(tmp_path, Log(dropped()), again)  # a is assumed to fail again, and is not deleted
    assert found == {"a": ("Deleted", "Failed"), "b": ("Deleted", "Awaiting"), "c": ("Deleted", "Awaiting")}
    log = happened(
        (create("a", retry=DROPPED), child("b", "a", ContinueOn.FAILED), child("c", "b", ContinueOn.ENDED)),
        (Pause(2_000), run_failed("a", 2)),
        (Pause(2_000), succeeded("c", 3)),
    )
    found, report = ends(tmp_path, Log(log), again)
    assert found == {"a": ("Deleted", "Failed"), "b": ("Deleted", UNKNOWN), "c": ("Succeeded", UNKNOWN)}
    assert report["would_have_run_outcome_unknown"] == 2


def test_what_never_ran_ends_as_is_asked(tmp_path: Path) -> None:
    found, report = ends(tmp_path, Log(dropped()), ONCE, Beyond.SUCCEED)
    assert set(found.values()) == {("Deleted", "Succeeded")}
    assert (report["assumed_runs"], report["would_have_run_outcome_unknown"]) == (3, 0)
    found, _ = ends(tmp_path, Log(dropped()), NEVER, Beyond.FAIL)
    assert found == {"a": ("Deleted", "Failed"), "b": ("Deleted", "Awaiting"), "c": ("Deleted", "Awaiting")}


def test_a_parent_that_would_have_succeeded_lets_its_clean_up_be_deleted(tmp_path: Path) -> None:
    log = happened(
        (create("a", retry=NEVER), child("b", "a", ContinueOn.FAILED)),
        (Pause(2_000), run_failed("a", 2)),
        (Pause(2_000), succeeded("b", 3)),
    )
    assert ends(tmp_path, Log(log), ONCE, Beyond.SUCCEED)[0] == {
        "a": ("Failed", "Succeeded"),
        "b": ("Succeeded", "Deleted"),
    }


def test_a_parent_in_a_later_lane_and_a_continuation_created_later_count_all_the_same(tmp_path: Path) -> None:
    events = recovered()
    lanes = [[one for one in events if name_of(one.job_id) in names] for names in ("cd", "b", "a")]
    assert ends(tmp_path, Log(*lanes), NEVER)[0] == ends(tmp_path, Log(events), NEVER)[0]
    log = happened(
        (create("a", retry=ONCE),),
        (run_failed("a", 2),),
        (DUE,),
        (succeeded("a", 6),),
        (Pause(60_000), child("b", "a")),
        (succeeded("b", 3),),
    )
    found, _ = ends(tmp_path, Log(log), NEVER)
    assert found == {"a": ("Succeeded", "Failed"), "b": ("Succeeded", "Awaiting")}
    first_ms = log[0].at_ms
    assert ends(tmp_path, Log(log), NEVER, to_ms=first_ms + 1)[0] == found  # b is not chosen, but follows


def test_only_chosen_jobs_have_the_other_policy_but_all_continuations_follow(tmp_path: Path) -> None:
    own = structs.replace(ONCE, delays_s=(1.0,))
    log = happened(
        (create("a", retry=ONCE), child("b", "a", ContinueOn.ENDED, task="clean", retry=own)),
        (run_failed("a", 2),),
        (DUE,),
        (succeeded("a", 6),),
        (run_failed("b", 3),),
        (DUE,),
        (succeeded("b", 7),),
    )
    found, report = ends(tmp_path, Log(log), NEVER, task="t")
    assert found == {"a": ("Succeeded", "Failed"), "b": ("Succeeded", "Succeeded")}
    assert report["retries"]["simulated"] == 1  # b keeps its own
    assert ends(tmp_path, Log(log), NEVER, task="clean")[0] == {"b": ("Succeeded", "Failed")}


def test_it_goes_on_wherever_it_was_stopped(tmp_path: Path) -> None:
    events = recovered() + dropped()
    lanes = [[one for one in events if name_of(one.job_id) in names] for names in ("cd", "a", "b")]
    whole, report = ends(tmp_path, Log(*lanes), NEVER)

    class Stopping:
        left = 0

        def __call__(self, *_: Any) -> None:
            self.left -= 1
            if self.left < 0:
                raise Stopped("stopped")

    stops = 0
    told = Stopping()
    log = Log(*lanes)
    for _ in range(100):
        told.left = 2
        try:
            found = ends(tmp_path, log, NEVER, told=told)
        except Stopped:
            stops += 1
            if stops > 12:  # what follows from parents to continuations is begun anew
                told = silent  # type: ignore[assignment]
        else:
            break
    assert stops > 5
    assert found == (whole, report)
    assert sum(start == 0 for start in log.reads) < stops


def test_what_was_written_behind_the_checkpoint_of_one_that_was_killed_does_not_count_twice(tmp_path: Path) -> None:
    events = recovered() + dropped()
    lanes = [[one for one in events if name_of(one.job_id) in names] for names in ("cd", "b", "a")]
    whole = ends(tmp_path, Log(*lanes), NEVER)

    class Killed(Exception):
        pass

    class Dying(Log):
        def facts(self, lane: int, start: int, end: int, progress: Callable[[int], object]) -> Iterator[StoredEvent]:
            if lane == 1:
                raise Killed
            return super().facts(lane, start, end, progress)

    with pytest.raises(Killed):
        ends(tmp_path, Dying(*lanes), NEVER)
    assert (tmp_path / "what-if.waiting").stat().st_size > 0
    log = Log(*lanes)
    assert ends(tmp_path, log, NEVER) == whole
    assert log.reads[0] == len(lanes[0])


def test_another_question_is_refused_in_a_directory_with_files(tmp_path: Path) -> None:
    def told(*_: Any) -> None:
        raise Stopped("stopped")

    with pytest.raises(Stopped):
        ends(tmp_path, Log(recovered()), NEVER, told=told)
    with pytest.raises(InvalidData, match="another question"):
        ends(tmp_path, Log(recovered()), ONCE)
