import asyncio
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
from joblog.services.tasks.task import Isolation, TaskRegistry, task
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.errors import SettingsError, UnknownTask


@task("images.count", queue="images", retry=RetryPolicy(attempts=2), timeout=timedelta(minutes=1))
def count(first: int, *, more: int = 1) -> int:
    """Counts."""
    return first + more


@task("images.wait", timeout=2.5, isolation="process")
async def wait(first: int) -> int:
    return first


def module_with(**values: object) -> ModuleType:
    module = ModuleType("some_tasks")
    vars(module).update(values)
    return module


def test_a_task_is_called_like_its_function() -> None:
    assert count(2, more=3) == 5
    assert asyncio.run(wait(4)) == 4


def test_a_task_carries_what_the_decorator_said() -> None:
    said = (count.name, count.queue, count.retry, count.timeout_s, count.isolation, count.is_async)
    assert said == ("images.count", "images", RetryPolicy(attempts=2), 60.0, Isolation.THREAD, False)
    assert (wait.queue, wait.retry, wait.timeout_s) == ("default", None, 2.5)
    assert (wait.isolation, wait.is_async) == (Isolation.PROCESS, True)


def test_a_task_keeps_name_and_docstring_of_its_function() -> None:
    assert (count.__name__, count.__doc__) == ("count", "Counts.")


@pytest.mark.parametrize("name", ["", "has space", "emoji\N{PILE OF POO}", "x" * 201, "new\nline", "trailing\n"])
def test_a_name_that_messages_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be the name of a task"):
        task(name)


def test_a_queue_that_messages_cannot_carry_is_refused() -> None:
    with pytest.raises(SettingsError, match="task t: 'Loud' is not a queue name: write loud"):
        task("t", queue="Loud")


def test_a_decorator_without_a_name_and_a_number_for_a_policy_are_refused_with_the_line_to_write() -> None:
    with pytest.raises(SettingsError, match=r'write @task\("myapp.do_something"\)'):
        task(count)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"write retry=RetryPolicy\(attempts=3\)"):
        task("t", retry=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), timedelta(0)])
def test_a_timeout_that_is_none_is_refused(timeout: float | timedelta) -> None:
    with pytest.raises(SettingsError, match="time-out"):
        task("t", timeout=timeout)


def test_an_isolation_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match="'vault'"):
        task("t", isolation="vault")


def test_a_generator_is_refused_since_nobody_would_run_it() -> None:
    with pytest.raises(SettingsError, match="generator"):

        @task("t")
        def endless() -> object:
            yield 1


def test_a_registry_collects_tasks_from_modules_and_by_themselves() -> None:
    registry = TaskRegistry.of(module_with(one=count, other=3), wait)
    assert registry.names == ("images.count", "images.wait")
    assert registry.get("images.count") is count
    assert len(registry) == 2


def test_the_same_task_may_be_found_twice() -> None:
    assert list(TaskRegistry.of(module_with(one=count, alias=count), count)) == [count]


def test_two_tasks_of_one_name_are_refused_with_both_places() -> None:
    @task("images.count")
    def impostor() -> None: ...

    with pytest.raises(SettingsError, match=r"images\.count.*\.count and .*impostor"):
        TaskRegistry.of(count, impostor)


def test_a_task_nobody_registered_is_unknown() -> None:
    with pytest.raises(UnknownTask, match=r"os\.system"):
        TaskRegistry.of(count).get("os.system")


def test_modules_are_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loadable_tasks.py").write_text(
        "from joblog.services.tasks.task import task\n@task('loaded')\ndef loaded(): return 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert TaskRegistry.load("loadable_tasks").get("loaded")() == 7


@pytest.mark.parametrize(("module", "why"), [("no.such.module", "cannot be imported"), ("json", "has no tasks")])
def test_a_module_without_tasks_is_refused(module: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        TaskRegistry.load(module)
