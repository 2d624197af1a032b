from datetime import timedelta
from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.relations import Need, UniquePolicy
from joblog.streams.contract.retry import Curve, Retry, jitter
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import EPOCH, format_time
from joblog.streams.lane.filters import FilterChain, RetryFilter
from joblog.streams.replay.history import Histories
from joblog.streams.replay.packed import packed, unpacked
from joblog.streams.replay.redecision import Difference, Redecision, differences
from joblog.streams.replay.stored import StoredEvent, stored_event
from joblog.streams.replay.what_if import WhatIf
from msgspec import Raw, structs

from tests.support.scene import NEVER, NOW, Pause, Scene, Tick, create, id_of, released, run_failed, succeeded, worker

SPREAD = Retry(attempts=2, curve=Curve.EXPONENTIAL, base_s=100.0, jitter=0.5)
CHAIN = FilterChain([RetryFilter(lambda: 0.0)])


class Log(Scene):
    """A scene whose events are kept as they would lie in the log."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[StoredEvent] = []

    def when(self, *inputs: Any) -> "Log":
        super().when(*inputs)
        for key, kind, event_id, data, cause, _ in self.out.events:
            time = format_time(self.now_ms)
            value = encode(wire.CloudEvent("1.0", event_id, "/l", kind, key, time, None, cause, None, data))
            if (found := stored_event(value)) is not None:
                self.stored.append(found)
        return self


def decided(log: Log, chain: FilterChain = CHAIN) -> list[Difference]:
    return differences(log.stored, chain)


@pytest.fixture
def log() -> Log:
    return Log()


def test_each_kind_of_input_is_found_and_decided_as_before(log: Log) -> None:
    a = id_of("a")
    log.given(worker(slots=3), create("a", retry=SPREAD), create("b", on="a"), create("c", retry=NEVER))
    log.when(run_failed("a", 2), released("c", 2)).when(Tick(200_000)).when(worker(slots=3))
    log.when(Tick(20_000)).when(wire.SetParameter(job_id=a, name="n", value={"x": 1}))
    log.when(worker(slots=3)).when(wire.RescheduleJob(job_id=a, run_at=_at(3_600_000), reason="r"))
    log.when(wire.DeleteJob(job_id=a, reason="d"), wire.RequeueJob(job_id=id_of("c"), reason="q"))
    states = {str(one.event.state) for one in log.stored}
    assert states == {"Enqueued", "Awaiting", "Processing", "Failed", "Scheduled", "Deleted"}
    assert decided(log) == []


def test_what_time_and_runs_bring_is_decided_as_before(log: Log) -> None:
    log.given(worker(slots=2), create("a", deadline=_at(90_000)), create("b", expires_in_s=60.0, priority=-1))
    log.given(create("c", deadline=_at(90_000), retry=SPREAD))
    a = {"job_id": id_of("a"), "lease": 2, "worker": "w"}
    log.when(wire.RunProgressed(**a, progress=0.5, text="half", lines=("x",)), released("b", 2), worker(slots=1))
    log.when(Tick(61_000, caught_up=False), worker(slots=1)).when(Tick(30_000, caught_up=False))
    log.when(wire.RequeueJob(job_id=id_of("a"), reason="q"))
    kinds = {(one.event.note or str(one.event.state), one.event.version) for one in log.stored}
    assert {("progressed", 3), ("Failed", 4), ("Deleted", 6), ("Deleted", 4)} <= kinds
    assert decided(log) == []


def delivered(log: Log) -> None:
    while log.out.reports:
        log.when(*(report for _, _, report in log.out.reports))


@pytest.mark.parametrize("need", Need)
def test_what_several_parents_led_to_is_decided_as_before(log: Log, need: Need) -> None:
    a, b = id_of("a"), id_of("b")
    log.given(worker(slots=3), create("a", retry=NEVER), create("b"), create("c", on="a"))
    log.given(*(report for _, _, report in log.out.reports))
    log.given(create("d", parents=wire.Parents((a, b), need=need)), create("e", parents=wire.Parents((b, a))))
    delivered(log)
    log.given(structs.replace(succeeded("a", 2), result=Raw(b'{"n": 1}')))
    delivered(log)
    log.given(wire.DeleteJob(job_id=b))
    delivered(log)
    kinds = {one.event.note for one in log.stored if one.job_id == id_of("e")}
    assert kinds == {None, "parent_ended"}
    ends = {one.job_id: one.event.state for one in log.stored}
    assert ends[id_of("e")] == "Deleted"
    assert ends[id_of("d")] == ("Deleted" if need is Need.ALL else "Processing")
    assert decided(log) == []
    assert same_without_change(log)


def test_continuations_that_wait_again_are_decided_as_before(log: Log) -> None:
    log.given(create("a"), create("b"), create("c", on="a"), create("d", on="a"))
    delivered(log)
    log.given(create("e", parents=wire.Parents((id_of("a"), id_of("b")), need=Need.ANY)))
    delivered(log)
    log.given(wire.DeleteJob(job_id=id_of("d")), wire.DeleteJob(job_id=id_of("a")))
    delivered(log)
    known = wire.Snapshot(2, State.DELETED, 0, "t", "q0", _at(0), wire.JobSpec())
    log.given(wire.RequeueJob(job_id=id_of("a"), snapshot=known))
    delivered(log)
    log.given(worker(), succeeded("a", 4))
    log.given(succeeded("a", 4))
    delivered(log)
    states = [str(one.event.note or one.event.state) for one in log.stored if one.job_id in {id_of("c"), id_of("e")}]
    assert states.count("Deleted") == 1
    assert states.count("Awaiting") == 3
    assert states.count("parent_ended") == 3
    assert {one.event.state for one in log.stored if one.job_id == id_of("d")} == {"Awaiting", "Deleted"}
    assert decided(log) == []
    assert same_without_change(log)


def test_a_condition_that_was_decided_otherwise_is_a_difference(log: Log) -> None:
    log.given(create("a"), create("b"), create("c", parents=wire.Parents((id_of("a"), id_of("b")))))
    early = wire.JobEvent(2, State.ENQUEUED, 0, "q0", "t", "too early")
    value = encode(
        wire.CloudEvent("1.0", "x", "/l", "job.enqueued", id_of("c"), None, None, "reports/0@9", None, early)
    )
    found = stored_event(value)
    assert found is not None
    log.stored.append(found)
    (difference,) = decided(log)
    assert difference.what == "ParentEnded is refused now: the job waits for other parents"


def same_without_change(log: Log) -> bool:
    """Whether what-if without another policy finds the jobs where they are."""
    histories = Histories()
    found = [one for stored in log.stored for one in histories.take(stored)] + list(histories)
    again = [unpacked(packed(one)) for one in found]
    return all(WhatIf(CHAIN).of(one).job.state is one.job.state for one in again)


def test_jobs_that_gave_way_to_others_of_their_key_are_decided_as_before(log: Log) -> None:
    log.given(worker(slots=3), create("a", unique=wire.Unique("k")))
    log.given(create("b", unique=wire.Unique("k", UniquePolicy.REPLACE)))
    log.given(create("c", unique=wire.Unique("k", UniquePolicy.DEBOUNCE, wait_s=1.5)))
    log.given(Pause(1_500), wire.JobDue(job_id=id_of("c"), version=1)).given(succeeded("b", 2))
    ends = {one.job_id: one.event.state for one in log.stored}
    assert ends == {id_of("a"): "Deleted", id_of("b"): "Succeeded", id_of("c"): "Processing"}
    assert decided(log) == []


def test_where_a_job_was_moved_and_its_priority_are_decided_as_before(log: Log) -> None:
    a = id_of("a")
    log.given(create("a", priority=1), create("b", run_at=_at(60_000)))
    log.when(wire.SetPriority(job_id=a, priority=0, reason="r"), wire.MoveJob(job_id=a, queue="q1", reason="m"))
    log.when(wire.MoveJob(job_id=id_of("b"), queue="q1"), worker(queues=("q1",)))
    log.when(wire.SetPriority(job_id=a, priority=-9)).when(succeeded("a", 4))
    snapshot = wire.Snapshot(6, State.SUCCEEDED, 1, "t", "q1", EPOCH, wire.JobSpec(priority=1), priority=-9)
    log.when(wire.RequeueJob(job_id=a, snapshot=snapshot)).when(wire.SetPriority(job_id=a, priority=3))
    assert [one.event.note for one in log.stored if one.job_id == a].count("priority_set") == 3
    assert decided(log) == []


def test_every_event_counts_as_decided(log: Log) -> None:
    log.given(worker(), create("a"), succeeded("a", 2))
    lane = Redecision(CHAIN)
    assert [lane.take(one) for one in log.stored] == [None] * 2
    assert (lane.decided, lane.undecided) == (2, 0)


def test_another_chance_is_a_difference(log: Log) -> None:
    log.given(worker(), create("a", retry=SPREAD)).when(run_failed("a", 2))
    (found,) = decided(log, FilterChain([RetryFilter(lambda: 0.5)]))
    assert (found.job_id, found.version) == (id_of("a"), 4)
    assert found.what.startswith("due was")


def test_another_rule_is_a_difference(log: Log) -> None:
    log.given(worker(), create("a", retry=SPREAD)).when(run_failed("a", 2))
    (found,) = decided(log, FilterChain([]))
    assert found.what == "recorded as Failed, Scheduled, decided as Failed"


def test_the_tasks_policy_is_told_by_the_failure(log: Log) -> None:
    log.given(worker(policies={"t": SPREAD}), create("a")).when(run_failed("a", 2))
    assert log.stored[-2].event.policy == SPREAD
    assert log.stored[-1].event.due == format_time(NOW + 100_000)
    assert decided(log) == []


def test_a_lost_run_that_counts_is_told_from_one_that_is_repeated(log: Log) -> None:
    fragile = Retry(attempts=1, lost_max=1, curve=Curve.FIXED, delays_s=(0.0,))
    log.given(worker(), create("a", retry=fragile))
    log.when(Tick(20_000)).when(worker()).when(Tick(20_000)).when(worker()).when(Tick(20_000))
    assert [one.event.lost for one in log.stored if one.event.state == "Enqueued"] == [0, 1, 1]
    assert decided(log) == []


def test_an_event_that_no_input_explains_is_a_difference(log: Log) -> None:
    log.given(worker(), create("a"))
    first, second = log.stored
    (found,) = differences([first, second, second], CHAIN)
    assert found.what == "Assigned is refused now: Assigned is not heard in state Processing"


def test_jobs_whose_beginning_is_not_there_are_counted(log: Log) -> None:
    log.given(worker(), create("a"))
    lane = Redecision(CHAIN)
    assert lane.take(log.stored[1]) is None
    assert (lane.decided, lane.undecided) == (0, 1)


def test_jitter_is_the_same_for_the_same_retry_and_spread_evenly() -> None:
    ids = [id_of(chr(97 + n % 26), n % 16)[:-3] + f"{n:03x}" for n in range(4_000)]
    units = [jitter(job, retry) for job in ids for retry in (1, 2)]
    assert units == [jitter(job, retry) for job in ids for retry in (1, 2)]
    assert all(0 <= unit < 1 for unit in units)
    counts = [0] * 10
    for unit in units:
        counts[int(unit * 10)] += 1
    # 800 are expected in each, with a deviation of 27.
    assert all(680 < count < 920 for count in counts), counts
    firsts, seconds = units[::2], units[1::2]
    assert abs(sum((a - 0.5) * (b - 0.5) for a, b in zip(firsts, seconds, strict=True)) * 12 / len(firsts)) < 0.08


def _at(ms: int) -> Any:
    return EPOCH + timedelta(milliseconds=NOW + ms)
