"""What becomes of batches and of jobs with several parents, where a job would have ended otherwise."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from joblog.streams.contract import wire
from joblog.streams.contract.relations import Need, ParentKind
from joblog.streams.contract.retry import Curve, OnExceeded, Retry
from joblog.streams.contract.states import ContinueOn
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.progress import Stopped, Told, silent
from joblog.streams.replay.asking import Asking
from joblog.streams.replay.outcomes import UNKNOWN
from joblog.streams.replay.question import Chosen, Question
from joblog.streams.replay.what_if import Beyond, WhatIf
from msgspec import json, structs

from tests.support.lane_world import QUEUES, chain
from tests.support.planned_life import Played, facts_of
from tests.support.scene import NEVER
from tests.unit.streams.replay.test_asking import Log

ONCE = Retry(attempts=1, curve=Curve.FIXED, delays_s=(1.0,))
LATER = structs.replace(ONCE, delays_s=(60.0,))
DROPPED = structs.replace(NEVER, on_exceeded=OnExceeded.DELETE)
FOREVER = 99


class Named(Played):
    """A log that a test writes, whose jobs and batches have names; `ends` is what is found."""

    def __init__(self, retry: Retry) -> None:
        super().__init__()
        self.retry = retry
        self.ids: dict[str, str] = {}
        self.started_ms = self.world.now_ms + 1
        self.report: dict[str, Any] = {}

    def id(self, name: str, lane: int = 0) -> str:
        return self.ids.setdefault(name, self.world.an_id(lane))

    def job(self, name: str, fails: int = 0, *, lane: int = 0, **said: Any) -> wire.CreateJob:
        self.fails[self.id(name, lane)] = fails
        return wire.CreateJob("t", queue=QUEUES[lane][0], job_id=self.id(name), retry=self.retry, **said)

    def after(self, name: str, on: ContinueOn = ContinueOn.SUCCEEDED, kind: ParentKind = ParentKind.BATCH) -> Any:
        return wire.Parent(self.id(name), on, kind)

    def parents(self, *names: str, need: Need) -> wire.Parents:
        return wire.Parents(tuple(self.id(name, lane) for lane, name in enumerate(names)), need=need)

    def batch(self, name: str, *jobs: wire.CreateJob, inner: tuple[str, ...] = (), **said: Any) -> list[wire.Command]:
        self.world.unsteady.add(self.id(name))
        members = [structs.replace(job, batch=self.id(name)) for job in jobs]
        first = wire.CreateBatch(batch_id=self.id(name), lanes=(0,), jobs=len(jobs) + len(inner), **said)
        return [first, *members, wire.MarkBatch(batch_id=self.id(name), mark_id=self.world.an_id(0))]

    def requeue(self, name: str) -> wire.RequeueJob:
        """Put back a job that its lane has forgotten."""
        job = self.world.folds[self.id(name)]
        created_at = EPOCH + timedelta(milliseconds=job.created_ms)
        known = job.version, job.state, job.attempt, job.task, job.queue, created_at
        spec = json.decode(job.spec, type=wire.JobSpec)
        return wire.RequeueJob(job_id=job.id, snapshot=wire.Snapshot(*known, spec))

    def send(self, *commands: wire.Command, turns: int = 1) -> None:
        self.world.send_all(commands)
        self.go_on(turns)

    def ends(
        self, directory: Path, retry: Retry, beyond: Beyond = Beyond.AS_RECORDED, told: Told = silent, **chosen: Any
    ) -> dict[str, tuple[str, str]]:
        """How each one ended, and would end; of batches those in which something would be otherwise."""
        log = Log(*facts_of(self.world))
        question = Question(
            WhatIf(chain(), retry, beyond),
            WhatIf(chain(), None, beyond),
            Chosen(**chosen),
            Counter(),
            whole=False,
            asked=chosen,
        )
        asking = Asking(log, question, directory, told)  # type: ignore[arg-type]
        try:
            asking.run()
        finally:
            asking.close()
        asking.discard()
        self.report = asking.report()
        names = {one: name for name, one in self.ids.items()}
        rows = [*self.report["ends"], *self.report["batch_ends"]]
        return {names[one]: (row["recorded"], row["simulated"]) for row in rows for one in row["samples"]}


def test_a_retry_that_is_missing_fails_the_batch_and_what_waits_for_it(tmp_path: Path) -> None:
    log = Named(ONCE)
    log.send(*log.batch("o", inner=("i",)), *log.batch("i", log.job("a", 1), log.job("b"), batch=log.id("o")))
    log.send(log.job("next", parent=log.after("o")), log.job("clean", parent=log.after("o", ContinueOn.FAILED)))
    log.send(*log.batch("w", log.job("c", parent=log.after("w")), parent=log.after("i", ContinueOn.ENDED)))
    log.until_quiet()
    assert log.ends(tmp_path, NEVER) == {
        "a": ("Succeeded", "Failed"),
        "b": ("Succeeded", "Succeeded"),
        "i": ("Succeeded", "Failed"),
        "o": ("Succeeded", "Failed"),
        "next": ("Succeeded", "Awaiting"),
        "clean": ("Deleted", UNKNOWN),
        "c": ("Succeeded", "Succeeded"),
        "w": ("Succeeded", "Succeeded"),
    }
    report = log.report
    assert (report["changed"], report["batches_of_changed"], report["batches_changed"]) == (3, 3, 2)
    assert report["continuations_of_changed"] == 3
    failed = {name: sum(row[name] for row in report["batch_ends"]) for name in ("succeeded_added", "failed_added")}
    assert failed == {"succeeded_added": -2, "failed_added": 2}  # a in its batch, and that in the outer one


def test_jobs_of_a_batch_that_come_one_after_the_other_are_one_batch(tmp_path: Path) -> None:
    log = Named(ONCE)
    first, *jobs, mark = log.batch("b", log.job("a", 1), log.job("c"))
    log.send(log.job("next", parent=log.after("b")), first, jobs[0], turns=12)  # a has ended before c comes
    log.send(*jobs[1:], mark)
    log.until_quiet()
    slower = structs.replace(ONCE, delays_s=(2.0,))
    assert log.ends(tmp_path, slower) == dict.fromkeys(("a", "c", "next", "b"), ("Succeeded", "Succeeded"))
    assert log.ends(tmp_path, NEVER)["next"] == ("Succeeded", "Awaiting")


def test_what_waits_for_an_unknown_run_is_unknown_through_batches(tmp_path: Path) -> None:
    log = Named(ONCE)
    log.send(log.job("a", 1), *log.batch("b", log.job("c", parent=log.after("a", ContinueOn.FAILED, ParentKind.JOB))))
    log.send(log.job("d", parent=log.after("b", ContinueOn.ENDED)))
    log.until_quiet()
    found = log.ends(tmp_path, NEVER)
    assert found["c"] == ("Deleted", UNKNOWN)
    assert found["b"] == ("Deleted", UNKNOWN)
    assert found["d"] == ("Succeeded", UNKNOWN)


def test_a_job_that_needs_any_parent_goes_on_by_one_that_did_not_matter_before(tmp_path: Path) -> None:
    log = Named(ONCE)
    log.send(log.job("a", 1), log.job("c", parents=log.parents("a", "b", need=Need.ANY)), turns=8)
    log.send(log.job("b", lane=1))  # c runs already, and nobody tells it of b
    log.until_quiet()
    assert log.ends(tmp_path, NEVER)["c"] == ("Succeeded", "Succeeded")
    assert (log.report["changed"], log.report["continuations_of_changed"]) == (1, 1)
    assert log.ends(tmp_path, NEVER, to_ms=log.started_ms)["c"] == ("Succeeded", UNKNOWN)  # b was not looked at


def test_a_job_that_needs_all_parents_waits_for_one_that_did_not_matter_before(tmp_path: Path) -> None:
    log = Named(DROPPED)
    log.send(log.job("a", 1), log.job("c", parents=log.parents("a", "b", need=Need.ALL)), turns=8)
    log.send(log.job("b", lane=1))  # c is deleted already
    log.until_quiet()
    assert log.ends(tmp_path, ONCE, Beyond.SUCCEED) == {
        "a": ("Deleted", "Succeeded"),
        "b": ("Succeeded", "Succeeded"),
        "c": ("Deleted", "Succeeded"),
    }
    assert log.ends(tmp_path, NEVER)["c"] == ("Deleted", "Awaiting")


def test_a_job_that_was_deleted_waits_again_when_its_parent_is_requeued(tmp_path: Path) -> None:
    log = Named(DROPPED)
    log.send(log.job("a", 1), log.job("c", parents=log.parents("a", "b", need=Need.ALL)), turns=8)
    log.send(log.job("b", lane=1), log.requeue("a"), turns=8)
    log.until_quiet()
    assert log.ends(tmp_path, DROPPED) == dict.fromkeys("abc", ("Succeeded", "Succeeded"))
    assert log.report["continuations_of_changed"] == 0
    slower = structs.replace(DROPPED, attempts=1, curve=Curve.FIXED, delays_s=(1.0,))
    assert log.ends(tmp_path, slower) == dict.fromkeys("abc", ("Succeeded", "Succeeded"))
    assert log.report["continuations_of_changed"] == 1


def cancelled(retry: Retry, *, turns: int) -> Named:
    """A job of a batch fails for ever; the batch is cancelled after so many turns."""
    log = Named(retry)
    log.send(*log.batch("b", log.job("a", FOREVER)), turns=turns)
    log.send(wire.CancelBatch(batch_id=log.id("b")))
    log.until_quiet()
    return log


def test_a_cancelled_batch_deletes_what_would_still_have_waited(tmp_path: Path) -> None:
    assert cancelled(NEVER, turns=4).ends(tmp_path, LATER) == {"a": ("Failed", "Deleted"), "b": ("Failed", "Deleted")}
    assert cancelled(NEVER, turns=4).ends(tmp_path, NEVER) == {"a": ("Failed", "Failed")}


def test_a_cancelled_batch_leaves_alone_what_would_have_failed_before(tmp_path: Path) -> None:
    assert cancelled(LATER, turns=4).ends(tmp_path, NEVER) == {"a": ("Deleted", "Failed"), "b": ("Deleted", "Failed")}
    assert cancelled(LATER, turns=4).ends(tmp_path, LATER) == {"a": ("Deleted", "Deleted")}


def test_a_run_that_would_be_made_when_its_batch_is_cancelled_goes_on(tmp_path: Path) -> None:
    log = Named(NEVER)
    log.send(*log.batch("b", log.job("a", FOREVER)))
    log.world.now_ms += 5_000  # so long it runs
    log.go_on(2)
    log.world.now_ms += 3_000
    log.send(wire.CancelBatch(batch_id=log.id("b")))
    log.until_quiet()
    assert log.ends(tmp_path, ONCE) == {"a": ("Failed", "Failed"), "b": ("Failed", "Failed")}
    assert log.report["assumed_runs"] == 1
    assert log.ends(tmp_path, structs.replace(ONCE, attempts=2))["a"] == ("Failed", "Deleted")
    assert log.report["assumed_runs"] == 1  # there is no other one


def test_a_job_that_would_wait_for_its_retry_is_deleted_with_its_cancelled_batch(tmp_path: Path) -> None:
    log = Named(NEVER)
    log.send(*log.batch("b", log.job("a", FOREVER)))  # it runs now
    log.world.send_all([wire.CancelBatch(batch_id=log.id("b"))])
    log.world.turn(0, 1_000, 0)
    log.until_quiet()
    assert log.ends(tmp_path, ONCE)["a"] == ("Failed", "Deleted")
    assert log.report["assumed_runs"] == 0


def test_a_batch_of_which_the_log_has_not_all_jobs_stays_as_it_is(tmp_path: Path) -> None:
    log = Named(ONCE)
    log.send(*log.batch("b", log.job("a", 1)))
    first_ms = log.world.now_ms
    log.go_on(1)
    more = structs.replace(log.job("c", 1), batch=log.id("b"))
    mark = wire.MarkBatch(batch_id=log.id("b"), mark_id=log.world.an_id(0))
    log.send(wire.AttachToBatch(batch_id=log.id("b"), addition=log.id("more"), lanes=(0,), jobs=1), more, mark)
    log.send(log.job("d", parent=log.after("b")))
    log.until_quiet()
    found = log.ends(tmp_path, NEVER, from_ms=first_ms)
    assert found == {"c": ("Succeeded", "Failed"), "d": ("Succeeded", "Succeeded")}
    assert (log.report["batches_of_changed"], log.report["batches_not_followed"]) == (0, 1)
    found = log.ends(tmp_path, NEVER, to_ms=first_ms)  # c and d are not chosen, and are there all the same
    assert found["a"] == ("Succeeded", "Failed")
    assert found["b"] == ("Succeeded", "Failed")
    assert found["d"] == ("Succeeded", "Awaiting")


def test_what_waits_for_itself_is_decided_as_if_nothing_else_was_otherwise(tmp_path: Path) -> None:
    log = Named(ONCE)
    one = log.job("a", parent=wire.Parent(log.id("two"), ContinueOn.ENDED, ParentKind.BATCH))
    other = log.job("b", parent=log.after("one", ContinueOn.ENDED))
    log.send(*log.batch("one", one, log.job("c", 1)), *log.batch("two", other))
    log.until_quiet()
    found = log.ends(tmp_path, NEVER)
    assert found == {"a": ("Awaiting",) * 2, "b": ("Awaiting",) * 2, "c": ("Succeeded", "Failed")}
    assert log.report["batches_not_followed"] == 1


def test_it_goes_on_wherever_it_was_stopped(tmp_path: Path) -> None:
    log = Named(ONCE)
    for number in range(5):
        log.send(*log.batch(f"b{number}", log.job(f"a{number}", 1), log.job(f"c{number}")))
        log.send(log.job(f"d{number}", parent=log.after(f"b{number}")))
    log.until_quiet()
    whole, report = log.ends(tmp_path, NEVER), log.report
    assert report["batches_changed"] == 5
    steps = iter(stops(12))

    def told(*_: Any) -> None:
        if next(steps, False):
            raise Stopped("stopped")

    for _ in range(30):
        try:
            found = log.ends(tmp_path, NEVER, told=told)
        except Stopped:
            continue
        break
    assert (found, log.report) == (whole, report)
    assert not list(tmp_path.iterdir())


def stops(count: int) -> Iterator[bool]:
    """Every third time, so many times."""
    for _ in range(count):
        yield from (False, False, True)
