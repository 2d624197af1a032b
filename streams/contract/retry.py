"""Retry policies as data, and the delay before each retry.

::

    RetryPolicy.fixed(1, 2, 4)  # three retries, after 1, 2 and 4 seconds
    RetryPolicy.exponential(base_s=2, factor=3, max_s=600, jitter=0.2, attempts=5)
    RetryPolicy.hangfire(attempts=3)  # Hangfire's curve: 15 to 44 s, 16 to 74 s, 31 to 118 s, ...
    RetryPolicy.none()

A policy that is written out, `RetryPolicy(...)`, raises SettingsError for a field that its curve does not read.
Messages may carry such fields, as those do that carry all of them; there they mean nothing.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Self, TypedDict, Unpack

from joblog.streams.contract.fields import ATTEMPTS_MAX, SECONDS_MAX, Seconds, StrictMessage, Text
from joblog.streams.errors import SettingsError
from msgspec import Meta, Struct
from pydantic import Field


class Curve(StrEnum):
    """How the delay grows from one retry to the next."""

    HANGFIRE = "hangfire"  # (n - 1)^4 + 15 + random(0..29) * n seconds
    FIXED = "fixed"  # delays_s, the last one repeats
    EXPONENTIAL = "exponential"  # base_s * factor^(n - 1), at most max_s, spread by jitter


class OnExceeded(StrEnum):
    """What becomes of a job whose retries are spent."""

    FAIL = "fail"
    DELETE = "delete"


Attempts = Annotated[int, Field(ge=0, le=ATTEMPTS_MAX), Meta(ge=0, le=ATTEMPTS_MAX)]
Factor = Annotated[float, Field(ge=1, le=100), Meta(ge=1, le=100)]
Share = Annotated[float, Field(ge=0, le=1), Meta(ge=0, le=1)]
Delays = Annotated[
    tuple[Seconds, ...],
    Field(min_length=1, max_length=ATTEMPTS_MAX),
    Meta(min_length=1, max_length=ATTEMPTS_MAX),
]
Names = Annotated[tuple[Text, ...], Field(max_length=100), Meta(max_length=100)]


#: The fields that only one curve reads.
CURVES_OF_FIELDS: Final[Mapping[str, Curve]] = {
    "delays_s": Curve.FIXED,
    **dict.fromkeys(("base_s", "factor", "max_s", "jitter"), Curve.EXPONENTIAL),
}


class Conditions(TypedDict, total=False):
    """What a policy says besides its delays; see RetryPolicy."""

    only_on: tuple[str, ...]
    except_on: tuple[str, ...]
    on_exceeded: OnExceeded
    count_lost: bool
    lost_max: int


class RetryPolicy(StrictMessage):
    """When a failed job is tried again, and what happens after the last time.

    - attempts: retries after the first run, 0 for none.
    - only_on / except_on: names of exception types, bare (`ValueError`) or with their module; a type matches
      by its own name or that of any of its bases. `except_on` wins.
    - count_lost: whether a run that ended because its worker was lost spends a retry.
    - lost_max: how many lost runs are repeated at once; the next one fails, so that a job which kills its
      workers ends.
    - jitter: share of the delay that is drawn at random (exponential only), 0 to 1.
    """

    attempts: Attempts = 10
    curve: Curve = Curve.HANGFIRE
    delays_s: Delays = (60.0,)
    base_s: Seconds = 15.0
    factor: Factor = 2.0
    max_s: Seconds = 86_400.0
    jitter: Share = 0.0
    only_on: Names = ()
    except_on: Names = ()
    on_exceeded: OnExceeded = OnExceeded.FAIL
    count_lost: bool = False
    lost_max: Attempts = 5

    # Not a validator, nor `__init__`: those would be asked for messages, too, and an old log must stay readable.
    # What pydantic parses or copies is made without arguments.
    def __new__(cls, **given: Any) -> Self:
        for name, fix in _idle(given):
            raise SettingsError(f"RetryPolicy: {name} has no effect on this curve; write {fix}")
        return super().__new__(cls)

    @classmethod
    def fixed(cls, *delays: timedelta | float, attempts: int | None = None, **conditions: Unpack[Conditions]) -> Self:
        """Retries after these delays (timedeltas or seconds), one for each; with more attempts the last repeats."""
        delays_s = tuple(one / timedelta(seconds=1) if isinstance(one, timedelta) else one for one in delays)
        if not delays_s:
            raise SettingsError("RetryPolicy.fixed: give a delay; without retries, write RetryPolicy.none()")
        count = len(delays_s) if attempts is None else attempts
        if count < len(delays_s):
            fix = _fixed(delays_s[:count], count) if count > 0 else "RetryPolicy.none()"
            raise SettingsError(
                f"RetryPolicy.fixed: {count} attempts leave {len(delays_s) - count} of {len(delays_s)} delays "
                f"without effect; write {fix}"
            )
        return cls(curve=Curve.FIXED, delays_s=delays_s, attempts=count, **conditions)

    @classmethod
    def exponential(
        cls,
        *,
        base_s: float = 15.0,
        factor: float = 2.0,
        max_s: float = 86_400.0,
        jitter: float = 0.0,
        attempts: int = 10,
        **conditions: Unpack[Conditions],
    ) -> Self:
        """Retries after base_s * factor^(n - 1) seconds, at most max_s, of which a share is drawn at random."""
        if base_s > max_s:
            raise SettingsError(
                f"RetryPolicy.exponential: base_s ({base_s:g}) has no effect above max_s ({max_s:g}); "
                f"write {_fixed((max_s,), attempts)}"
            )
        return cls(
            curve=Curve.EXPONENTIAL,
            base_s=base_s,
            factor=factor,
            max_s=max_s,
            jitter=jitter,
            attempts=attempts,
            **conditions,
        )

    @classmethod
    def hangfire(cls, attempts: int = 10, **conditions: Unpack[Conditions]) -> Self:
        """Retries after (n - 1)^4 + 15 + random(0..29) * n seconds."""
        return cls(curve=Curve.HANGFIRE, attempts=attempts, **conditions)

    @classmethod
    def none(cls, **conditions: Unpack[Conditions]) -> Self:
        """No retries; a run whose worker was lost is still repeated, unless `count_lost` or `lost_max` forbid it."""
        return cls(attempts=0, **conditions)


def _idle(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields given by name that the curve does not read, and the line that was meant.

    A default beside the name of the curve is a policy written out in full, as `model_dump` gives it.
    """
    curve = given.get("curve", Curve.HANGFIRE)
    for name, reader in CURVES_OF_FIELDS.items():
        if name not in given or curve == reader or curve not in tuple(Curve):
            continue
        value = tuple(given[name]) if isinstance(given[name], list) else given[name]
        if "curve" not in given or value != RetryPolicy.model_fields[name].default:
            yield name, _meant(given, reader)


def _meant(given: Mapping[str, Any], curve: Curve) -> str:
    attempts = given.get("attempts", 10)
    if curve is Curve.FIXED:
        delays = given["delays_s"]
        return _fixed(delays if isinstance(delays, list | tuple) else (delays,), attempts)
    fields = [f"{name}={given[name]!r}" for name, of in CURVES_OF_FIELDS.items() if of is curve and name in given]
    return f"RetryPolicy.exponential({', '.join([*fields, f'attempts={attempts}'])})"


def _fixed(delays: tuple[Any, ...] | list[Any], attempts: int) -> str:
    """The line that gives these delays; those beyond the last attempt are left out."""
    used = [repr(one) for one in delays[: max(attempts, 1)]]
    return f"RetryPolicy.fixed({', '.join([*used, *([f'attempts={attempts}'] if attempts != len(used) else [])])})"


class Retry(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """`RetryPolicy` in the form that the elector computes with; a test holds the two equal."""

    attempts: Attempts = 10
    curve: Curve = Curve.HANGFIRE
    delays_s: Delays = (60.0,)
    base_s: Seconds = 15.0
    factor: Factor = 2.0
    max_s: Seconds = 86_400.0
    jitter: Share = 0.0
    only_on: Names = ()
    except_on: Names = ()
    on_exceeded: OnExceeded = OnExceeded.FAIL
    count_lost: bool = False
    lost_max: Attempts = 5


#: What a job gets that brings no policy and whose task has none: Hangfire's ten attempts on its curve.
DEFAULT_RETRY: Final = Retry()


def delay_s(policy: Retry, retry: int, random_unit: float) -> float:
    """Seconds to wait before the `retry`-th retry (1-based); `random_unit` is drawn from [0, 1)."""
    match policy.curve:
        case Curve.HANGFIRE:
            # The 239th retry would come after more than a hundred years, a late one after the calendar's end.
            return float(min((retry - 1) ** 4 + 15 + int(random_unit * 30) * retry, SECONDS_MAX))
        case Curve.FIXED:
            return policy.delays_s[min(retry, len(policy.delays_s)) - 1]
        case Curve.EXPONENTIAL:
            return _exponential(policy, retry, random_unit)


def _exponential(policy: Retry, retry: int, random_unit: float) -> float:
    # The exponent is bounded, since 100.0 ** 1000 overflows and no delay is longer than max_s anyway.
    full = min(policy.base_s * policy.factor ** min(retry - 1, 150), policy.max_s)
    return full * (1 - policy.jitter * random_unit)


def is_retried(policy: Retry, exception_types: tuple[str, ...]) -> bool:
    """Whether the policy wants another try after an exception whose type and bases have these names."""
    names = {name for full in exception_types for name in (full, full.rpartition(".")[2])}
    if names.intersection(policy.except_on):
        return False
    return not policy.only_on or bool(names.intersection(policy.only_on))
