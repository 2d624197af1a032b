"""In which order filters are called: first those of the whole client or worker, then those of the job's task.

Within each scope by `order`, an attribute that a filter may have (0 if it has none), and then as they were given. So
what a task declares is nearest to its jobs. What is called afterwards is called in the opposite order.
"""

from collections.abc import Iterable
from typing import Any, Final

from joblog.streams.errors import SettingsError

#: What makes a filter one of a kind.
CLIENT: Final = ("on_creating", "on_created")
WORKER: Final = ("before_run", "after_run")


def ordered(filters: Iterable[Any]) -> tuple[Any, ...]:
    """The filters of one scope in the order in which they are called."""
    return tuple(sorted(filters, key=lambda one: getattr(one, "order", 0)))


def of_kind(filters: Iterable[Any], methods: tuple[str, ...]) -> tuple[Any, ...]:
    """Those that have these methods; one may be of both kinds."""
    return tuple(one for one in filters if all(hasattr(one, name) for name in methods))


def check_filters(task: str, filters: Iterable[Any]) -> tuple[Any, ...]:
    """The filters of a task; SettingsError for one that would never be called."""
    made = ordered(filters)
    for one in made:
        if isinstance(one, type):
            raise SettingsError(f"task {task}: {one.__name__} is a class: write filters=[{one.__name__}(...)]")
        if not of_kind([one], CLIENT) and not of_kind([one], WORKER):
            raise SettingsError(
                f"task {task}: {type(one).__name__} is no filter: a client filter has {' and '.join(CLIENT)}, "
                f"a worker filter {' and '.join(WORKER)}"
            )
    return made
