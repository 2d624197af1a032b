"""Retry policies as data, and the delay before each retry."""

from enum import StrEnum
from typing import Annotated, Final

from joblog.streams.contract.fields import ATTEMPTS_MAX, SECONDS_MAX, Seconds, StrictMessage, Text
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
