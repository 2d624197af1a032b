"""Tasks: named functions that jobs call, and the explicit list of those that a process knows."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from functools import update_wrapper
from re import fullmatch
from types import ModuleType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar

from joblog.services.tasks.limits import check_limits
from joblog.services.tasks.modules import declared, imported
from joblog.services.tasks.queue_names import queue_problem
from joblog.services.tasks.scopes import check_filters
from joblog.services.tasks.unique import check_key
from joblog.streams.contract.commands import Limit, Unique
from joblog.streams.contract.fields import SECONDS_MAX, TASK_PATTERN
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.errors import SettingsError, TaskError, UnknownTask

P = ParamSpec("P")
R = TypeVar("R")


class ArgumentsError(TaskError):
    """A job's arguments do not fit its task; the text names the arguments, never their values."""


class Isolation(StrEnum):
    """Where a run takes place: in a thread (or asyncio task) of the worker, or in a process that can be killed."""

    THREAD = "thread"
    PROCESS = "process"


class Task(Generic[P, R]):
    """A named function with what a worker needs to run it; calling it calls the function, here and now.

    - queue: where its jobs go if nobody says otherwise.
    - retry: its own policy, None for the default; a job may bring another.
    - timeout_s: the longest run, in seconds, None for no end; a job may bring another.
    - unique: the unique key of its jobs, with places for their arguments (unique.py).
    - limits: those of its jobs, with places in their keys for arguments (limits.py).
    - filters: client and worker filters of its jobs, in their order (scopes.py).
    - result_bytes_max: the longest result, as JSON, None for what the worker allows.
    """

    __name__: str  # the function's, as its docstring

    def __init__(
        self,
        function: Callable[P, R],
        name: str,
        *,
        queue: str,
        retry: RetryPolicy | None,
        timeout_s: float | None,
        isolation: Isolation,
        unique: Unique | None = None,
        limits: Sequence[Limit] = (),
        filters: tuple[Any, ...] = (),
        result_bytes_max: int | None = None,
    ) -> None:
        update_wrapper(self, function)
        self.function: Final = function
        self.name: Final = name
        self.queue: Final = queue
        self.retry: Final = retry
        self.timeout_s: Final = timeout_s
        self.isolation: Final = isolation
        self.unique: Final = unique
        self.limits: Final = tuple(limits)
        self.filters: Final = filters
        self.result_bytes_max: Final = result_bytes_max
        self.recurrences: tuple[Any, ...] = ()  # declared with @recurring (recurring.py)
        self.is_async: Final = inspect.iscoroutinefunction(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


def task(
    name: str,
    *,
    queue: str = "default",
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    isolation: Isolation | str = Isolation.THREAD,
    unique: Unique | None = None,
    limits: Sequence[Limit] = (),
    filters: Sequence[Any] = (),
    result_bytes_max: int | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function, sync or async, a task.

    - name: what jobs call it by; it outlives the function's own name.
    - queue: where its jobs go if their creator names no other. `"tenant-{tenant}"` is made of the job's arguments;
      a worker of such queues has to name them.
    - retry: its retry policy; None for ten retries on Hangfire's curve.
    - timeout: the longest run, a timedelta or seconds. When it is over, the attempt fails, and its policy decides
      on a retry. With `isolation="process"` the run is killed. Otherwise it is asked to stop: an async task is
      cancelled; a sync one has to look at its CancellationToken, and keeps its slot until it returns.
    - unique: the unique key of its jobs, in which `{name}` stands for the argument of that name; jobs that
      are created by the task's name alone have none.
    - limits: mutexes, semaphores and rates of its jobs, such as `Limit.mutex("orders:{order_id}")`, beside those
      that a job brings. As with `unique`, `{name}` is an argument, and jobs created by name alone have none.
    - isolation: `"thread"` (for async functions: the worker's event loop), or `"process"`.
    - filters: client filters for jobs that are created with the task itself, not with its name; worker filters for
      all its runs. They are called after those of the client, or worker.
    - result_bytes_max: a longer result, as JSON, is left out, with the reason; never more than the worker allows.

    Raises SettingsError for a value that no task can have.
    """
    if not isinstance(name, str):
        raise SettingsError('a task needs a name: write @task("myapp.do_something") above the function')
    timeout_s = timeout / timedelta(seconds=1) if isinstance(timeout, timedelta) else timeout
    for problem in _problems(name, queue, retry, timeout_s, isolation, result_bytes_max):
        raise SettingsError(problem)

    def made(function: Callable[P, R]) -> Task[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise SettingsError(f"task {name}: {function!r} is a generator, which nobody would run to its end")
        if unique is not None:
            check_key(name, function, unique)
        check_limits(name, function, limits)
        return Task(
            function,
            name,
            queue=queue,
            retry=retry,
            timeout_s=timeout_s,
            isolation=Isolation(isolation),
            unique=unique,
            limits=limits,
            filters=check_filters(name, filters),
            result_bytes_max=result_bytes_max,
        )

    return made


def _problems(
    name: str,
    queue: str,
    retry: object,
    timeout_s: float | None,
    isolation: Isolation | str,
    result_bytes_max: int | None,
) -> Iterator[str]:
    """Why no task can be like that."""
    if not fullmatch(TASK_PATTERN, name):
        yield f"{name!r} cannot be the name of a task: it must match {TASK_PATTERN}"
    if (problem := queue_problem(queue)) is not None:
        yield f"task {name}: {problem}"
    if result_bytes_max is not None and result_bytes_max < 0:
        yield f"task {name}: result_bytes_max={result_bytes_max} is less than 0"
    if retry is not None and not isinstance(retry, RetryPolicy):
        yield f"task {name}: retry={retry!r:.60} is not a policy: write retry=RetryPolicy(attempts=3)"
    if timeout_s is not None and not 0 < timeout_s <= SECONDS_MAX:
        yield f"task {name}: a time-out of {timeout_s} s is not between 0 and {SECONDS_MAX} s"
    if isolation not in set(Isolation):
        yield f"task {name}: isolation is one of {', '.join(Isolation)}, not {isolation!r}"


class TaskRegistry:
    """The tasks that a process knows, by name. Nothing gets in but what it was made from."""

    def __init__(self, tasks: Mapping[str, Task[..., Any]]) -> None:
        self._tasks: Final = dict(tasks)

    @classmethod
    def of(cls, *sources: ModuleType | Task[..., Any]) -> Self:
        """All tasks among and in `sources`; SettingsError when two have one name."""
        tasks: dict[str, Task[..., Any]] = {}
        for found in declared(sources, Task):
            other = tasks.setdefault(found.name, found)
            if other is not found:
                raise SettingsError(
                    f"two tasks have the name {found.name}: {_place(other)} and {_place(found)}; rename one"
                )
        return cls(tasks)

    @classmethod
    def load(cls, *modules: str) -> Self:
        """The tasks of the modules of these names; SettingsError when one has none or cannot be imported."""
        return cls.of(*(imported(name, Task, "task") for name in modules))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._tasks))

    def get(self, name: str) -> Task[..., Any]:
        """The task of this name; UnknownTask if this process does not know it."""
        try:
            return self._tasks[name]
        except KeyError as exc:
            raise UnknownTask(f"no task {name} is registered in this process") from exc

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)


def _place(of: Task[..., Any]) -> str:
    return f"{of.function.__module__}.{of.function.__qualname__}"
