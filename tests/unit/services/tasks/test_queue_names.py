"""Queues that are chosen by arguments."""

import pytest
from joblog.services.client.definitions import definition_of
from joblog.services.client.options import Call, JobOptions, drafted
from joblog.services.tasks.context import JobContext
from joblog.services.tasks.task import task
from joblog.streams.errors import InvalidData, SettingsError


@task("bill", queue="tenant-{tenant}")
def bill(job: JobContext, tenant: str, size: int = 3) -> None: ...


def queue_of(call: Call, options: JobOptions | None = None, of: object = bill) -> str | None:
    return drafted(of, call, options or JobOptions()).options.queue  # type: ignore[arg-type]


def test_a_queue_is_made_of_arguments_by_name_by_place_and_by_default() -> None:
    assert queue_of(Call(kwargs={"tenant": 7})) == "tenant-7"
    assert queue_of(Call(["acme"])) == "tenant-acme"  # the worker fills the first parameter
    assert queue_of(Call(["acme"]), JobOptions(queue="{tenant}-{size}")) == "acme-3"
    assert queue_of(Call(["acme"]), JobOptions(queue="fast")) == "fast"
    assert queue_of(Call(kwargs={"tenant": "a"}), JobOptions(queue="t-{tenant}"), "bill") == "t-a"


def test_a_missing_argument_is_named_and_so_is_what_is_no_queue() -> None:
    with pytest.raises(InvalidData, match=r"tenant-\{tenant\} of bill: the job has no argument tenant$"):
        queue_of(Call())
    with pytest.raises(InvalidData, match="the job has no argument tenant; give it by name"):
        queue_of(Call(["a"]), JobOptions(queue="t-{tenant}"), "bill")
    with pytest.raises(InvalidData, match=r"tenant-\{tenant\} of bill: .*tenant-Acme Corp"):
        queue_of(Call(["Acme Corp"]))


@pytest.mark.parametrize("queue", ["{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a:>9}", "{a!r}"])
def test_a_template_names_arguments_and_nothing_else(queue: str) -> None:
    with pytest.raises(InvalidData, match="queue"):
        JobOptions(queue=queue)
    with pytest.raises(SettingsError, match="task t: queue"):
        task("t", queue=queue)


def test_a_recurring_definition_has_the_queue_of_its_arguments() -> None:
    fields = {"args": (), "kwargs": {"tenant": 7}, "zone": "UTC"}
    assert definition_of("r", bill, "@daily", None, JobOptions(), fields).queue == "tenant-7"
    with pytest.raises(InvalidData, match=r"options\.expires_in has no effect"):
        definition_of("r", bill, "@daily", None, JobOptions(expires_in=3), fields)
