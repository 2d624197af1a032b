"""Which queues a worker serves."""

import logging

import pytest
from joblog.services.tasks import TaskRegistry, task
from joblog.services.wiring_worker import queues_of


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
