"""What the README shows of single capabilities works, on a Joblog in memory."""

import importlib
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from joblog import services
from joblog.projections.monitor.models import JobDetails
from joblog.services import State, task
from joblog.services.hooks.hook import HookRegistry
from joblog.services.testing import InMemoryJoblog

from tests.support.readme import BEYOND_MEMORY, README, code, examples, run

#: What the examples call `paths`.
PATHS = ["a.png", "b.png"]


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The tasks of the ten lines, as a module that the examples import."""
    (tmp_path / "tasks.py").write_text(code("tasks.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tasks", raising=False)
    importlib.invalidate_caches()
    yield importlib.import_module("tasks")
    del sys.modules["tasks"]


@pytest.fixture
def joblog(tasks: ModuleType) -> Iterator[InMemoryJoblog]:
    others = ["images.unpack", "images.check", "search.index", "mail.send"]
    with InMemoryJoblog(tasks, *(task(name)(lambda *_: None) for name in others)) as made:
        yield made


def ran(heading: str, joblog: InMemoryJoblog, tasks: ModuleType) -> dict[str, Any]:
    """Run the examples under a heading; returns the names that are there afterwards."""
    names: dict[str, Any] = {name: getattr(services, name) for name in services.__all__}
    names |= {"client": joblog, "shrink": tasks.shrink, "publish": tasks.publish, "paths": PATHS}
    names |= {"timedelta": timedelta, "monday": joblog.now + timedelta(days=1)}
    names["job"] = joblog.enqueue(tasks.shrink, "a.png")
    for block in examples()[heading]:
        if not any(name in block for name in BEYOND_MEMORY):
            run(block, names)
    return names


def by_task(joblog: InMemoryJoblog, name: str) -> list[JobDetails]:
    return joblog.jobs(task=name)


def test_a_run_looks_at_its_token_and_has_a_deadline(joblog: InMemoryJoblog, tasks: ModuleType) -> None:
    ran("Retries, times, cancellation", joblog, tasks)
    joblog.run_all(raises=True)
    [job] = by_task(joblog, "images.scan")
    assert (job.state, job.result) == (State.SUCCEEDED, 1)
    assert job.spec["expires_in_s"] == 300
    assert job.spec["deadline"] is not None


def test_a_continuation_reads_the_results_of_several_parents(joblog: InMemoryJoblog, tasks: ModuleType) -> None:
    ran("Continuations", joblog, tasks)
    joblog.run_all(raises=True)
    [job] = by_task(joblog, "images.report")
    assert (job.state, job.result) == (State.SUCCEEDED, 1280)


def test_batches_are_created_continued_attached_to_and_cancelled(joblog: InMemoryJoblog, tasks: ModuleType) -> None:
    ran("Batches", joblog, tasks)
    joblog.run_all(raises=True)
    states = {name: [job.state for job in by_task(joblog, name)] for name in ("images.check", "images.publish")}
    assert states == {"images.check": [State.SUCCEEDED], "images.publish": [State.SUCCEEDED]}
    assert [job.state for job in by_task(joblog, "mail.send")] == [State.DELETED]
    assert len(joblog.jobs(task=tasks.shrink, state=State.SUCCEEDED)) == 1 + len(PATHS) + 1
    assert joblog.rejected == []


def test_of_a_unique_key_one_job_lives(joblog: InMemoryJoblog, tasks: ModuleType) -> None:
    names = ran("Unique keys", joblog, tasks)
    joblog.enqueue(names["bill"], 17)
    assert [one.code for one in joblog.rejected] == ["existing"]
    joblog.drain(raises=True)
    assert [job.state for job in by_task(joblog, "search.index")] == [State.SUCCEEDED]


def test_jobs_with_limits_run(joblog: InMemoryJoblog, tasks: ModuleType) -> None:
    names = ran("Limits", joblog, tasks)
    for order in range(30):
        joblog.enqueue(names["pay"], order)
    joblog.run_all(raises=True)
    assert len(joblog.jobs(task="orders.pay", state=State.SUCCEEDED)) == 10, "what `limits.set` said"
    joblog.drain(raises=True)
    assert len(joblog.jobs(task="orders.pay", state=State.SUCCEEDED)) == 30
    assert joblog.rejected == []


def test_a_run_tells_how_far_it_is(joblog: InMemoryJoblog, tasks: ModuleType) -> None:
    names = ran("Progress and log lines", joblog, tasks)
    job = joblog.enqueue(names["tag"], PATHS)
    joblog.run_all(raises=True)
    found = joblog.job(job)
    assert [line.text for line in found.lines] == ["a.png shows a cat", "b.png shows a cat"]
    assert found.progress is not None
    assert (found.progress.share, found.progress.text) == (1, "picture 2 of 2")


def test_a_task_has_filters_and_a_queue_for_each_tenant(joblog: InMemoryJoblog, tasks: ModuleType) -> None:
    names = ran("Filters and hooks", joblog, tasks)
    job = joblog.job(joblog.enqueue(names["export"], "7"))
    assert (job.queue, job.spec["expires_in_s"], job.parameters["Completion"]) == ("tenant-7", 60, "once")


def test_recurring_jobs_run_at_their_times_and_not_while_they_are_paused(
    joblog: InMemoryJoblog, tasks: ModuleType
) -> None:
    names = ran("Recurring jobs", joblog, tasks)
    for block in examples()["Recurring jobs"]:
        run(block, names)
    joblog.register(names["send"])
    assert joblog.register_recurring() == ["reports.send"]
    joblog.run_all()
    before = joblog.run_for(hours=23, raises=True)
    assert {job.parameters["RecurringJobId"] for job in before} <= {"reports.send"}
    after = joblog.run_for(days=1, raises=True)
    assert {job.parameters["RecurringJobId"] for job in after} == {"hourly", "reports.send"}


def test_an_event_of_another_service_is_a_job(joblog: InMemoryJoblog, tasks: ModuleType) -> None:
    module = ModuleType("triggers")
    run(code("triggers.py"), module.__dict__)
    joblog.register(module)
    [job] = joblog.publish("uploads", {"path": "a.png"}, type="image.uploaded")
    assert (job.task, job.priority) == ("images.shrink", 10)
    joblog.run_all(raises=True)
    assert joblog.job(job.id).result == {"width": 320}


def test_the_hook_is_one() -> None:
    module = ModuleType("hooks")
    run(code("hooks.py"), module.__dict__)
    [hook] = HookRegistry.of(module)
    assert hook.name == "hooks.page"


def test_queues_and_jobs_do_as_they_are_told(joblog: InMemoryJoblog, tasks: ModuleType) -> None:
    names = ran("Queues, workers, and many jobs at once", joblog, tasks)
    assert joblog.run_next(queue="images") is None, "it is paused"
    job = joblog.job(names["job"])
    assert (job.priority, job.queue) == (10, "backlog")
    assert [one.code for one in joblog.rejected] == ["unknown_worker"]
    joblog.run_all(raises=True)
    joblog.assert_state(names["job"], State.SUCCEEDED)


@pytest.mark.parametrize(
    "example", ["test_a_picture_is_published_once_it_was_shrunk", "test_a_picture_survives_a_crash_and_a_slow_day"]
)
def test_the_example_of_a_test_passes(joblog: InMemoryJoblog, example: str) -> None:
    names: dict[str, Any] = {}
    run(code("test_pictures.py"), names)
    triggers = ModuleType("triggers")
    run(code("triggers.py"), triggers.__dict__)
    joblog.register(triggers)
    names[example](joblog)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text("utf-8"))
    assert len(links) > 20
    assert [link for link in links if not (README.parent / link).exists()] == []
