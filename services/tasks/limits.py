"""Limits that jobs share, and how a task declares those of its jobs.

::

    @task("orders.pay", limits=[Limit.mutex("orders:{order_id}"), Limit.sliding_window("bank", 50, per=1)])
    def pay(order_id): ...

In the key of a task's limit, and in its tenant, `{name}` stands for the argument of that name.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Self

from joblog.services.tasks.keys import Callee, check_places, formed, places_of
from joblog.streams.contract import commands
from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.relations import LIMITS_MAX, LimitKind
from joblog.streams.errors import InvalidData, SettingsError
from pydantic import ValidationError

_INSTEAD: Final = "give options=JobOptions(limits=[...])"


class Limit(commands.Limit):
    """A limit that a job shares with all others that name the same kind and key, whatever their queue.

    - capacity and interval may differ from job to job: those of the job that asked last hold.
    - tenant: among those that wait for the limit, tenants take turns.

    The constructors raise InvalidData for values that no limit can have.
    """

    @classmethod
    def mutex(cls, key: str, *, tenant: str | None = None) -> Self:
        """One job at a time."""
        return cls._made(LimitKind.MUTEX, key, 1, None, tenant)

    @classmethod
    def semaphore(cls, key: str, capacity: int, *, tenant: str | None = None) -> Self:
        """So many jobs at a time."""
        return cls._made(LimitKind.SEMAPHORE, key, capacity, None, tenant)

    @classmethod
    def fixed_window(cls, key: str, capacity: int, *, per: timedelta | float, tenant: str | None = None) -> Self:
        """So many starts in each interval, a timedelta or seconds; intervals begin at multiples of it since 1970."""
        return cls._made(LimitKind.FIXED_WINDOW, key, capacity, per, tenant)

    @classmethod
    def sliding_window(cls, key: str, capacity: int, *, per: timedelta | float, tenant: str | None = None) -> Self:
        """So many starts in any interval of this length, a timedelta or seconds."""
        return cls._made(LimitKind.SLIDING_WINDOW, key, capacity, per, tenant)

    @classmethod
    def token_bucket(cls, key: str, capacity: int, *, per: timedelta | float, tenant: str | None = None) -> Self:
        """So many starts at once, which come back one after another, all of them in this time."""
        return cls._made(LimitKind.TOKEN_BUCKET, key, capacity, per, tenant)

    @classmethod
    def _made(
        cls, kind: LimitKind, key: str, capacity: int, per: timedelta | float | None, tenant: str | None
    ) -> Self:
        interval_s = per / timedelta(seconds=1) if isinstance(per, timedelta) else per
        try:
            return cls(kind=kind, key=key, capacity=capacity, interval_s=interval_s, tenant=tenant)
        except ValidationError as exc:
            raise InvalidData(f"{kind} {key!r:.100}: {explained(exc)}") from exc


def check_limits(task: str, function: Callable[..., Any], limits: Sequence[commands.Limit]) -> None:
    """Raise SettingsError unless all are limits, and each place in their keys is the name of a parameter."""
    if len(limits) > LIMITS_MAX:
        raise SettingsError(f"task {task}: {len(limits)} limits are more than {LIMITS_MAX}")
    for limit in limits:
        if not isinstance(limit, commands.Limit):
            raise SettingsError(f'task {task}: {limit!r:.60} is no limit: write Limit.mutex("{{order_id}}")')
        check_places(task, f"limit {limit.key!r}", function, limit.key)
        if limit.tenant is not None:
            check_places(task, f"tenant {limit.tenant!r}", function, limit.tenant)


def has_places(limits: Sequence[commands.Limit]) -> bool:
    """Whether the limits of a task differ from job to job."""
    return any(places_of("", limit.key) or places_of("", limit.tenant or "") for limit in limits)


def limited(
    limits: Sequence[commands.Limit], task: Callee, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[commands.Limit, ...]:
    """The limits of one job; raises InvalidData for arguments that make none."""
    return tuple(_limited(limit, task, args, kwargs) for limit in limits)


def _limited(limit: commands.Limit, task: Callee, args: Sequence[Any], kwargs: Mapping[str, Any]) -> commands.Limit:
    texts = {"key": formed(f"limit {limit.key}", _INSTEAD, task, limit.key, args, kwargs)}
    if limit.tenant is not None:
        texts["tenant"] = formed(f"tenant {limit.tenant}", _INSTEAD, task, limit.tenant, args, kwargs)
    try:
        return commands.Limit.model_validate({**limit.model_dump(), **texts})
    except ValidationError as exc:
        raise InvalidData(f"limit of task {task.name}: {explained(exc)}") from exc
