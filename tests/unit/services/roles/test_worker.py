"""Which queues a worker serves, and which filters it has."""

import logging
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from joblog.services.roles.worker import queues_of
from joblog.services.tasks.context import JobContext
from joblog.services.tasks.task import TaskRegistry, task
from joblog.services.worker import filters as worker_filters
from joblog.streams.errors import SettingsError


@task("a")
def a() -> None: ...


@task("b", queue="shop")
def b() -> None: ...


@task("c", queue="images")
def c() -> None: ...


@task("d", queue="shop")
def d() -> None: ...


REGISTRY = TaskRegistry.of(a, b, c, d)


def test_a_worker_serves_the_queues_of_its_tasks_the_default_one_last() -> None:
    assert list(queues_of((), REGISTRY)) == ["shop", "images", "default"]
    assert list(queues_of((), TaskRegistry.of(b))) == ["shop"]


def test_a_task_whose_queue_is_left_out_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert queues_of(("default", "images"), REGISTRY) == ("default", "images")
    (record,) = caplog.records
    assert (record.message, vars(record)["queue"], vars(record)["tasks"]) == (
        "worker.queue_not_served",
        "shop",
        ["b", "d"],
    )


def test_queues_that_are_chosen_and_complete_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    queues_of(("default", "images", "shop", "more"), REGISTRY)
    assert caplog.records == []


# --- filters ---


class Around:
    def before_run(self, context: JobContext) -> None: ...

    def after_run(self, context: JobContext, outcome: Any) -> None: ...


class Half:
    def before_run(self, context: JobContext) -> None: ...


class Demanding(Around):
    def __init__(self, something: str) -> None: ...


def offer(monkeypatch: pytest.MonkeyPatch, *kinds: type) -> None:
    offered = [EntryPoint(kind.__name__, f"shop:{kind.__name__}", worker_filters.ENTRY_POINTS) for kind in kinds]
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.name])
    monkeypatch.setattr(worker_filters, "entry_points", lambda group: offered if "worker" in group else [])


def test_filters_that_are_installed_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, Around)
    (made,) = worker_filters.installed_worker_filters()
    assert isinstance(made, Around)


@pytest.mark.parametrize(("kind", "said"), [(Half, "AttributeError"), (Demanding, "TypeError")])
def test_a_filter_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, kind: type, said: str) -> None:
    offer(monkeypatch, Around, kind)
    with pytest.raises(SettingsError, match=rf"filter {kind.__name__} \(shop:.* cannot be used: {said}"):
        worker_filters.installed_worker_filters()


def test_a_worker_of_queues_that_are_made_of_arguments_names_them() -> None:
    @task("by_tenant", queue="tenant-{tenant}")
    def by_tenant(tenant: str) -> None: ...

    registry = TaskRegistry.of(a, by_tenant)
    with pytest.raises(SettingsError, match="the queues of by_tenant are made of arguments: name those to serve"):
        queues_of((), registry)
    assert queues_of(("tenant-7",), registry) == ("tenant-7",)
