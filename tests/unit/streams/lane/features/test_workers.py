import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import WorkerStopping
from joblog.streams.lane.output import BYTES_MAX, RECORDS_MAX, Budget
from joblog.streams.lane.rules import LaneRules
from msgspec import Raw, structs

from tests.support.scene import (
    IN_A_MINUTE,
    BrokerClockSet,
    ClockSet,
    Pause,
    Scene,
    Tick,
    create,
    id_of,
    name_of,
    released,
    succeeded,
    worker,
)

STOPPING = WorkerStopping(worker="w")
UNKNOWN_TASK = "another"


def home(name: str = "w", slots: int = 1) -> wire.WorkerAnnounced:
    """A worker whose events this lane writes."""
    return worker(name, slots, home=True)


# --- the order of assignment ---


def test_the_highest_priority_goes_first_and_then_the_oldest() -> None:
    scene = Scene().given(create("a"), create("b", priority=5)).given(Pause(1), create("c", priority=5), create("d"))
    scene.when(worker(slots=4)).and_assigned(
        "w: run b, lease 2", "w: run c, lease 2", "w: run a, lease 2", "w: run d, lease 2"
    )


def test_a_released_job_keeps_its_place_in_the_queue() -> None:
    scene = Scene().given(worker(), create("a")).given(Pause(1), create("b"))
    scene.when(released("a", 2)).and_assigned("w: run a, lease 4")


def test_workers_take_turns() -> None:
    scene = Scene().given(worker("w", 2), worker("v", 2))
    scene.when(create("a"), create("b"), create("c"), create("d"), create("e"))
    scene.and_assigned("w: run a, lease 2", "v: run b, lease 2", "w: run c, lease 2", "v: run d, lease 2")


def test_a_worker_gets_no_more_than_it_has_slots() -> None:
    scene = Scene().given(worker(slots=2)).when(create("a"), create("b"), create("c"))
    scene.and_assigned("w: run a, lease 2", "w: run b, lease 2")
    scene.when(worker(slots=1)).and_assigned()
    scene.when(succeeded("a", 2)).and_assigned()
    scene.when(succeeded("b", 2)).and_assigned("w: run c, lease 2")


def test_a_paused_worker_gets_nothing_and_keeps_what_it_has() -> None:
    scene = Scene().given(worker(), create("a"), create("b"))
    scene.when(worker(slots=0)).then()
    scene.when(succeeded("a", 2)).then("a3 Succeeded")
    scene.when(worker(slots=1)).then("b2 Processing #1 by w")


def test_a_worker_of_other_queues_gets_nothing() -> None:
    scene = Scene().given(create("a")).when(worker(queues=("q1",))).then()
    scene.when(worker(queues=("q1", "q0"))).then("a2 Processing #1 by w")


def test_a_worker_of_many_queues_serves_them_all() -> None:
    scene = Scene().given(create("a"), create("b", queue="q1"))
    scene.when(worker(slots=2, queues=("q0", "q1"))).then("a2 Processing #1 by w", "b2 Processing #1 by w")


def test_a_job_whose_task_nobody_knows_waits_and_holds_nobody_up() -> None:
    scene = Scene().given(worker(slots=2)).when(create("a", task=UNKNOWN_TASK, priority=9), create("b"))
    scene.then("a1 Enqueued", "b1 Enqueued", "b2 Processing #1 by w")
    scene.when(worker("v", tasks=("t", UNKNOWN_TASK))).then("a2 Processing #1 by v")


def test_a_worker_that_does_not_know_the_task_leaves_it_to_one_that_does() -> None:
    scene = Scene().given(worker("w", 5, tasks=()), worker("v", 1))
    scene.when(create("a"), create("b")).and_assigned("v: run a, lease 2")


def test_a_queue_that_a_worker_names_twice_does_not_stop_the_lane_when_it_goes() -> None:
    scene = Scene().given(worker(queues=("q0", "q0"))).given(STOPPING)
    scene.when(create("a")).then("a1 Enqueued")


# --- leases ---


def test_a_worker_that_renews_keeps_its_jobs() -> None:
    scene = Scene().given(worker(), create("a"))
    for _ in range(5):
        scene.when(Tick(14_000), worker()).then()


def test_a_worker_that_does_not_renew_is_lost_and_its_jobs_elected_anew() -> None:
    scene = Scene().given(worker(), create("a"))
    scene.when(Tick(15_000)).then()
    scene.when(Tick(1)).then("a3 Enqueued lost 1")
    assert scene.reasons == ["Worker w was lost"]
    scene.when(worker("v")).then("a4 Processing #2 by v")
    scene.when(succeeded("a", 2)).then()


def test_the_clock_of_a_lane_that_is_behind_calls_nobody_late() -> None:
    scene = Scene().given(worker(), create("a")).when(Tick(60_000, caught_up=False)).then()
    scene.when(worker()).then()
    scene.when(Tick(1)).then()


def test_the_log_tells_when_a_worker_fell_silent_although_others_did_not() -> None:
    scene = Scene().given(worker("w"), create("a"))
    for _ in range(5):
        scene.given(Pause(3_000), worker("v", 0)).when(Tick(0, caught_up=False)).then()
    scene.given(Pause(1), worker("v", 0)).when(Tick(0, caught_up=False)).then("a3 Enqueued lost 1")


def test_a_job_that_kills_its_workers_fails_in_the_end() -> None:
    retry = structs.replace(IN_A_MINUTE, lost_max=1)
    scene = Scene().given(worker("v"), create("a", retry=retry))
    scene.when(Tick(15_001)).then("a3 Enqueued lost 1")
    scene.given(worker("v")).when(Tick(15_001)).then("a5 Failed traversed", "a6 Scheduled retry 1")


def test_a_lost_run_spends_a_retry_if_the_policy_says_so() -> None:
    scene = Scene().given(worker(), create("a", retry=Retry(attempts=0, count_lost=True)))
    scene.when(Tick(15_001)).then("a3 Failed")
    assert scene.job("a").state is State.FAILED


def test_a_worker_that_stops_gives_back_what_it_still_held() -> None:
    scene = Scene().given(worker("w", 2), create("a"), create("b"))
    scene.when(STOPPING).then("a3 Enqueued lost 1", "b3 Enqueued lost 1")
    assert scene.out.state["worker:w"] is None
    scene.when(STOPPING).then()


def test_a_lost_worker_gets_nothing_until_it_announces_itself_again() -> None:
    scene = Scene().given(worker()).given(Tick(15_001)).when(create("a")).then("a1 Enqueued")
    scene.when(worker()).then("a2 Processing #1 by w")


# --- what is said of workers ---


def test_the_home_lane_writes_the_events_of_a_worker() -> None:
    scene = Scene().when(home()).then("worker.started w")
    scene.when(Tick(14_000), home()).then()
    scene.when(home(slots=0)).then("worker.started w")
    scene.when(STOPPING).then("worker.stopped w")
    scene.given(home()).when(Tick(15_001)).then("worker.lost w")


def test_slots_offered_to_this_lane_are_no_news_to_people() -> None:
    scene = Scene().given(home())
    scene.when(structs.replace(home(), slots=0)).then()
    assert scene.lane.workers.get("w").announced.slots == 0


def test_a_renewing_worker_is_written_once_a_minute() -> None:
    scene = Scene().given(home())
    said = [scene.when(Tick(10_000), home()).events for _ in range(13)]
    assert [n for n, lines in enumerate(said, 1) if lines == ["worker.alive w"]] == [6, 12]


def test_another_lane_writes_nothing_of_a_worker() -> None:
    Scene().when(worker()).then().when(STOPPING).then()


def test_a_worker_is_kept_in_the_state_only_when_it_changes() -> None:
    scene = Scene().when(worker())
    assert scene.out.state.keys() == {"worker:w"}
    assert not scene.when(Tick(3_000), worker()).out.state
    assert scene.when(worker(slots=2)).out.state.keys() == {"worker:w"}


def test_events_of_workers_have_ids_of_their_own() -> None:
    scene = Scene(rules=LaneRules(alive_ms=0)).when(home("w"), home("v"), home("w"))
    ids = [event_id for _, _, event_id, _, _, _ in scene.out.events]
    assert len(set(ids)) == 3


def test_a_job_of_a_lost_worker_is_not_given_to_it_again() -> None:
    scene = Scene().given(worker("w"), create("a")).given(Pause(10_000), worker("v"))
    scene.when(Tick(5_001)).then("a3 Enqueued lost 1", "a4 Processing #2 by v")
    assert scene.lane.workers.get("w") is None
    assert scene.lane.workers.get("v").held == {id_of("a"): 4}


# --- what else makes a worker lost, or not ---


def test_a_tasks_own_policy_counts_for_lost_runs_too() -> None:
    never_twice = Retry(attempts=0, count_lost=True, lost_max=0)
    scene = Scene().given(worker(policies={"t": never_twice}), create("a"), create("b", retry=IN_A_MINUTE))
    scene.when(STOPPING).then("a3 Failed")
    scene = Scene().given(worker(policies={"t": never_twice})).reloaded().given(create("a"))
    scene.when(STOPPING).then("a3 Failed")


@pytest.mark.parametrize("step", [3_600_000, -3_600_000])
def test_an_electors_clock_that_is_set_makes_nobody_late(step: int) -> None:
    scene = Scene().given(worker(), create("a")).given(ClockSet(step))
    scene.when(Tick(15_000)).then()
    scene.when(Tick(1)).then("a3 Enqueued lost 1")


@pytest.mark.parametrize("step", [16_000, 3_600_000, -3_600_000])
def test_a_brokers_clock_that_jumps_makes_nobody_lost_while_a_renewal_is_unread(step: int) -> None:
    scene = Scene().given(worker(), worker("v"), create("a")).given(Pause(2_900), BrokerClockSet(step))
    scene.when(worker("v"), Tick(0, caught_up=False)).then()
    scene.when(Pause(100), worker(), Tick(0, caught_up=False)).then()


def test_two_brokers_whose_clocks_differ_make_nobody_lost_however_often_they_take_turns() -> None:
    scene = Scene().given(worker(), worker("v"), create("a"))
    for turn in range(20):
        scene.when(BrokerClockSet(20_000 if turn % 2 else -20_000), Pause(3_000), worker(), worker("v"))
        scene.when(Tick(0, caught_up=False)).then()


def test_a_worker_that_is_really_gone_is_lost_in_a_busy_lane_whose_brokers_clock_jumped() -> None:
    scene = Scene().given(worker(), worker("v"), create("a")).given(BrokerClockSet(-3_600_000))
    for _ in range(6):  # the step back itself counts for nothing: one renewal more than otherwise
        scene.when(Pause(2_999), worker("v"), Tick(0, caught_up=False)).then()
    scene.given(Pause(2_999), worker("v"))
    scene.when(Tick(0, caught_up=False)).then("a3 Enqueued lost 1", "a4 Processing #2 by v")


# --- more than one transaction can hold ---

LARGE = Raw(b'["' + b"x" * 500_000 + b'"]')


def test_slots_are_filled_in_parts_that_fit_into_a_transaction() -> None:
    scene = Scene().given(*(create(chr(200 + number), args=LARGE) for number in range(100)))
    started, turns = [], 0
    scene.when(worker(slots=99))
    while scene.lane.is_unfilled or not turns:
        assert 0 < sum(len(said.spec) for _, _, said in scene.out.assignments) < BYTES_MAX
        started += [said.job_id for _, _, said in scene.out.assignments]
        turns += 1
        scene.when()
    started += [said.job_id for _, _, said in scene.out.assignments]
    assert started == [id_of(chr(200 + number)) for number in range(99)]
    assert turns > 1


def test_large_jobs_do_not_keep_others_from_their_slots_when_new_ones_come_all_the_time() -> None:
    assert not Budget(RECORDS_MAX // 2 + 1, BYTES_MAX // 2 + 1).is_half_spent
    assert Budget(RECORDS_MAX // 2).is_half_spent
    assert Budget(size=BYTES_MAX // 2).is_half_spent
    assert not Budget(1, 1).is_spent
    assert Budget(0).is_spent
    assert Budget(size=0).is_spent


@pytest.mark.parametrize("ending", [Tick(15_001), STOPPING])
def test_what_a_lost_worker_held_is_elected_anew_in_parts_and_it_gets_nothing_meanwhile(ending: object) -> None:
    scene = Scene().given(worker(slots=200), *(create(chr(200 + number), args=LARGE) for number in range(100)))
    while scene.lane.is_unfilled:
        scene.given()
    assert len(scene.lane.workers.get("w").held) == 100
    scene.when(ending)
    again, turns = len(scene.events), 1
    assert 0 < again < 100
    while scene.lane.workers.get("w"):
        scene.when(Tick(100))
        assert not scene.out.assignments
        again += len(scene.events)
        turns += 1
    assert again == 100
    assert turns > 1


# --- jobs that may be what kills workers ---


def killed(scene: Scene, name: str) -> str:
    """The worker dies with all that it has; another one comes, whose name is given back."""
    scene.given(Tick(15_001))
    following = f"{name}'"
    scene.when(worker(following, slots=10))
    return following


def running(scene: Scene) -> str:
    """The letters of the jobs that run."""
    jobs = scene.lane.jobs.values()
    return "".join(sorted(name_of(job.id) for job in jobs if job.state is State.PROCESSING))


def test_a_job_that_kills_its_workers_fails_alone_and_those_that_ran_beside_it_do_not() -> None:
    policy = Retry(attempts=0, lost_max=5)
    scene = Scene().given(worker(slots=10), *(create(name, retry=policy) for name in "abc"))
    name, deaths = "w", 0
    while id_of("a") in scene.lane.jobs and scene.job("a").state is not State.FAILED:
        if "a" in running(scene):
            name, deaths = killed(scene, name), deaths + 1
            assert deaths <= 6
        else:  # the one that runs ends well, and makes room
            (other,) = running(scene)
            scene.when(succeeded(other, scene.job(other).lease, by=name))
    assert deaths == 6
    for _ in "bc":
        for other in running(scene):
            scene.when(succeeded(other, scene.job(other).lease, by=name))
    assert [name_of(job_id) for job_id in scene.lane.jobs] == ["a"]


def test_after_one_loss_all_jobs_of_the_worker_start_again_at_once() -> None:
    scene = Scene().given(worker(slots=10), *map(create, "abc"))
    killed(scene, "w")
    assert running(scene) == "abc"


def test_suspects_run_one_on_each_worker_and_others_beside_them() -> None:
    scene = Scene().given(worker(slots=10), *map(create, "abc"))
    name = killed(scene, killed(scene, "w"))
    assert running(scene) == "a"
    scene.when(create("d"))
    assert running(scene) == "ad"
    scene.when(worker("v", slots=10))
    assert running(scene) == "abd"
    scene.when(succeeded("a", scene.job("a").lease, by=name))
    assert running(scene) == "bcd"


def test_a_suspect_that_waits_can_be_deleted_and_survives_a_takeover() -> None:
    scene = Scene().given(worker(slots=10), *map(create, "abc"))
    name = killed(scene, killed(scene, "w"))
    scene.when(wire.DeleteJob(job_id=id_of("b"))).then("b6 Deleted")
    scene.reloaded().when(worker(name, slots=10))
    assert running(scene) == "a"
    scene.when(succeeded("a", scene.job("a").lease, by=name))
    assert running(scene) == "c"


# --- what people tell workers ---


def test_a_worker_is_told_by_its_home_lane() -> None:
    scene = Scene().given(home())
    scene.when(wire.QuietWorker(worker="w", by="ann", reason="deployment")).then("worker.quieted w")
    scene.and_assigned("w: told by ann to take no more jobs: deployment")
    scene.when(wire.StopWorker(worker="w")).then("worker.stop_ordered w").and_assigned("w: told to stop")
    order = scene.out.assignments[0][2]
    assert isinstance(order, wire.OrderWorker)
    assert order.what == "stop"
    scene.when(wire.ResumeWorker(worker="w", by="bob")).then("worker.resumed w")
    scene.and_assigned("w: told by bob to take jobs again")


@pytest.mark.parametrize("kind", [wire.QuietWorker, wire.ResumeWorker, wire.StopWorker])
def test_a_worker_that_is_not_there_or_has_another_home_is_not_told(kind: type) -> None:
    scene = Scene().given(worker("v")).given(home("w")).given(WorkerStopping(worker="w"))
    scene.when(kind(worker="w"), kind(worker="v")).then("rejected unknown_worker", "rejected wrong_lane")
    scene.and_assigned()


def test_what_a_quiet_worker_announces_is_an_event() -> None:
    scene = Scene().given(home())
    scene.when(structs.replace(home(), slots=0, quiet=True)).then("worker.started w")
    event = scene.out.events[0][3]
    assert isinstance(event, wire.WorkerEvent)
    assert event.quiet


def test_what_a_run_says_is_an_event_and_its_lease_stays() -> None:
    said = {"job_id": id_of("a"), "worker": "w", "progress": 0.4, "text": "page 40", "lines": ("a line",)}
    scene = Scene().given(worker(), create("a"))
    scene.when(wire.RunProgressed(**said, lease=2)).then("a3 Processing #1 by None")
    (event,) = (data for _, _, _, data, _, _ in scene.out.events)
    assert (event.note, event.progress, event.reason, event.lines) == ("progressed", 0.4, "page 40", ("a line",))
    assert b"a line" not in scene.kept[id_of("a")]
    scene.reloaded().when(succeeded("a", 2)).then("a4 Succeeded")


def test_what_an_old_run_says_is_counted_and_dropped() -> None:
    said = {"job_id": id_of("a"), "lease": 2, "worker": "w", "progress": 0.4}
    scene = Scene().given(worker(), create("a")).given(released("a", 2, started=True))
    scene.when(wire.RunProgressed(**said)).then()
    assert scene.out.counts["joblog_stale_reports_total", "run.progressed"] == 1
    scene.given(succeeded("a", 4)).when(wire.RunProgressed(**said)).then()
    assert scene.out.counts["joblog_stale_reports_total", "run.progressed"] == 1
