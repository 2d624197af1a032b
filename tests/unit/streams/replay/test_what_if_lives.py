"""What-if over the logs of whole lives: by the same rules nothing is otherwise, by others all is as it really is."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.retry import Curve, OnExceeded, Retry
from joblog.streams.replay.asking import Asking
from joblog.streams.replay.outcomes import UNKNOWN
from joblog.streams.replay.question import Chosen, Question
from joblog.streams.replay.what_if import Beyond, WhatIf

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES, chain
from tests.support.planned_life import PlannedLife, facts_of
from tests.support.relations_life import Life
from tests.unit.streams.lane.features.test_batches_property import STEPS, Story
from tests.unit.streams.replay.test_asking import Log


def asked(
    world: BatchWorld, directory: Path, retry: Retry | None, beyond: Beyond = Beyond.AS_RECORDED
) -> dict[str, Any]:
    """The report on what a world would be with another policy."""
    rules = WhatIf(chain(), retry, beyond), WhatIf(chain(), None, beyond)
    question = Question(*rules, Chosen(), Counter(), whole=False, asked={})
    asking = Asking(Log(*facts_of(world)), question, directory)  # type: ignore[arg-type]
    asking.run()
    asking.close()
    asking.discard()
    return asking.report()


def check_that_nothing_changes(world: BatchWorld, directory: Path) -> None:
    report = asked(world, directory, None)
    assert report["jobs"] == len(world.folds)
    names = "changed", "continuations_of_changed", "batches_of_changed", "batches_not_followed", "assumed_runs"
    assert {name: report[name] for name in names} == dict.fromkeys(names, 0)
    assert report["retries"]["saved"] == report["retries"]["added"] == 0


class TimelyLife(Life):
    """One whose timers fire in time, and not before."""

    def _fire(self) -> None:
        for timer in [one for one in self.world.timers if one.due_ms <= self.world.now_ms]:
            self.world.timers.remove(timer)
            due = wire.JobDue(job_id=timer.job_id, version=timer.version)
            self.world.report(lane_of_job(timer.job_id), due)

    def _wait(self) -> None:
        super()._wait()
        self._fire()
        self._all_lanes()

    def _lose_a_worker(self) -> None:
        super()._lose_a_worker()
        self._fire()
        self._all_lanes()

    def _all_lanes(self) -> None:
        for lane in range(LANES):
            self.world.turn(lane, 1_000, 1_000)


@pytest.mark.parametrize("seed", range(16))
def test_nothing_is_otherwise_for_jobs_that_share_limits_and_keys_by_their_own_rules(
    seed: int, tmp_path: Path
) -> None:
    life = TimelyLife(seed)
    for _ in range(300):
        life.step()
    life.end()
    check_that_nothing_changes(life.world, tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_otherwise_for_batches_by_their_own_rules_whatever_happens_to_them(
    seed: int, tmp_path: Path
) -> None:
    story = Story(seed)
    story.announce()
    for _ in range(STEPS):
        story.random.choice(story.steps)()
    story.world.until_quiet(ms=2_000)
    assert story.cancelled
    check_that_nothing_changes(story.world, tmp_path)


def test_jobs_and_batches_end_as_they_really_do_with_other_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblog.streams.replay.outcomes.SAMPLES_MAX", 1_000)
    compared: Counter[str] = Counter()
    for seed in range(7):
        never, once, twice = (policy(attempts, seed) for attempts in range(3))
        recorded, real = PlannedLife(seed, once), PlannedLife(seed, never)
        compare(recorded, real, asked(recorded.world, tmp_path, never), compared)
        compare(recorded, recorded, asked(recorded.world, tmp_path, twice), compared)
        check_that_nothing_changes(recorded.world, tmp_path)
    assert compared["jobs that end otherwise"] > 30
    assert compared["batches that end otherwise"] > 8
    assert compared["numbers"] > 7
    assert compared["unknown"] < 40


def test_what_failed_and_what_waited_for_it_in_vain_ends_as_it_really_does_with_one_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that were never made are assumed to succeed, and in these lives a second run does."""
    monkeypatch.setattr("joblog.streams.replay.outcomes.SAMPLES_MAX", 1_000)
    compared: Counter[str] = Counter()
    for seed in range(40, 48):
        recorded, real = (PlannedLife(seed, policy(attempts, seed), (0, 0, 1)) for attempts in range(2))
        report = asked(recorded.world, tmp_path, policy(1, seed), Beyond.SUCCEED)
        compare(recorded, real, report, compared)
    assert compared["jobs that end otherwise"] > 50
    assert compared["batches that end otherwise"] > 20
    assert compared["unknown"] == 0


def policy(attempts: int, seed: int) -> Retry:
    exceeded = OnExceeded.DELETE if seed % 2 else OnExceeded.FAIL
    return Retry(attempts=attempts, curve=Curve.FIXED, delays_s=(1.0,), on_exceeded=exceeded)


def compare(recorded: PlannedLife, real: PlannedLife, report: dict[str, Any], compared: Counter[str]) -> None:
    """What was found of a life, against that life as it really is with the other policy."""
    ends = {one: row["simulated"] for row in report["ends"] for one in row["samples"]}
    batches = {one: row["simulated"] for row in report["batch_ends"] for one in row["samples"]}
    for kind, known, found in (("jobs", recorded.fails, ends), ("batches", recorded.batches, batches)):
        for one in known:
            was, really = str(recorded.states[one]), str(real.states[one])
            simulated = found.get(one, was)
            assert simulated in {really, UNKNOWN}, (kind, one, was)
            compared[f"{kind} that end otherwise"] += was != simulated != UNKNOWN
            compared["unknown"] += simulated == UNKNOWN
    assert report["batches_not_followed"] == 0
    if UNKNOWN not in batches.values():
        compare_numbers(recorded, real, report["batch_ends"], batches)
        compared["numbers"] += 1


def compare_numbers(
    recorded: PlannedLife, real: PlannedLife, rows: list[dict[str, Any]], batches: Iterable[str]
) -> None:
    """How many members of these batches end how, and how many more would."""
    for name in ("succeeded", "failed", "deleted"):
        was, really = (
            sum(getattr(life.world.told[one][-1][1], name) for one in batches) for life in (recorded, real)
        )
        assert sum(row[f"{name}_added"] for row in rows) == really - was, name
