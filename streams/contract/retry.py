"""Retry policies as data, and the delay before each retry.

::

    RetryPolicy.fixed(1, 2, 4)  # three retries, after 1, 2 and 4 seconds
    RetryPolicy.exponential(base_s=2, factor=3, max_s=600, jitter=0.2, attempts=5)
    RetryPolicy.hangfire(attempts=3)  # Hangfire's curve: 15 to 44 s, 16 to 74 s, 31 to 118 s, ...
    RetryPolicy.none()

A policy raises SettingsError for what would have no effect, with the line to write instead, and for values out of
range. A policy in a message may carry fields without effect, since a log that was written once must stay readable.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any, Final, Self, TypedDict, Unpack

from joblog.streams.contract.fields import ATTEMPTS_MAX, SECONDS_MAX, Seconds, StrictMessage, Text
from joblog.streams.errors import SettingsError
from msgspec import Meta, Struct
from pydantic import Field, ValidationError


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
    """When a failed job is tried again, and what happens after the last retry.

    - attempts: retries after the first run, 0 for none.
    - curve: how the delays grow; `delays_s`, or `base_s`, `factor`, `max_s` and `jitter`, belong to one of them.
    - jitter: the share of each delay that is drawn at random, 0 to 1.
    - only_on / except_on: names of exception types, bare (`ValueError`) or with their module; a type matches
      by its own name or that of any of its bases.
    - on_exceeded: whether the job fails or is deleted when its retries are spent.
    - count_lost: whether a run whose worker was lost counts as a failure, and so spends a retry.
    - lost_max: how many lost runs are repeated at once before one counts as a failure, so that a job which kills its
      workers ends.
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

    # Not a validator, nor `__init__`: pydantic would call those for messages, too, and an old log must stay readable.
    # What pydantic parses or copies is made without arguments.
    def __new__(cls, **given: Any) -> Self:
        if given:
            for problem in _problems(given):
                raise SettingsError(f"RetryPolicy: {problem}")
        return super().__new__(cls)

    @classmethod
    def fixed(cls, *delays: timedelta | float, attempts: int | None = None, **conditions: Unpack[Conditions]) -> Self:
        """Retries after these delays (timedeltas or seconds), one for each; with more attempts the last repeats."""
        if not delays:
            raise SettingsError("RetryPolicy.fixed: give a delay; without retries, write RetryPolicy.none()")
        if isinstance(delays[0], list | tuple):
            raise SettingsError(f"RetryPolicy.fixed: give each delay by itself; write {_fixed(delays[0])}")
        delays_s = tuple(one / timedelta(seconds=1) if isinstance(one, timedelta) else one for one in delays)
        count = len(delays_s) if attempts is None else attempts
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


def _problems(given: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a policy that is written out: values, then names without effect, each with the fix."""
    for name in ("only_on", "except_on"):
        yield from _misspelt_types(name, given.get(name, ()))
    try:
        made = RetryPolicy.model_validate(given)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_context=False)[0]
        yield f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
        return
    yield from _idle(made, given)
    yield from _contradictions(made)


def _misspelt_types(name: str, types: Any) -> Iterator[str]:
    """Exception types are given by their names: what else people write."""
    several = types if isinstance(types, list | tuple) else (types,)
    if several is not types or any(isinstance(one, type) for one in several):
        names = tuple(one.__name__ if isinstance(one, type) else one for one in several)
        yield f"{name} holds the names of exception types; write {name}={names!r}"


def _idle(made: RetryPolicy, given: Mapping[str, Any]) -> Iterator[str]:
    """Fields given by name that the curve does not read.

    A default beside the name of the curve is a policy written out in full, as `model_dump` gives it.
    """
    for name, reader in CURVES_OF_FIELDS.items():
        is_written_out = "curve" in given and getattr(made, name) == RetryPolicy.model_fields[name].default
        if name in given and made.curve is not reader and not is_written_out:
            yield f"{name} has no effect on this curve; write {_meant(made, given, reader)}"


def _contradictions(made: RetryPolicy) -> Iterator[str]:
    """Values without effect beside the others."""
    if made.attempts == 0:
        if made.curve is not Curve.HANGFIRE:
            yield "delays have no effect without attempts; write RetryPolicy.none()"
        for name in ("only_on", "except_on"):
            if getattr(made, name):
                yield f"{name} has no effect without retries: leave it out, or give attempts"
    for name in set(made.only_on).intersection(made.except_on):
        yield f"{name} is in only_on and in except_on, which wins: leave it out of one of them"
    if made.count_lost and made.lost_max != RetryPolicy.model_fields["lost_max"].default:
        yield "lost_max has no effect with count_lost=True, by which each lost run counts: leave one of them out"
    match made.curve:
        case Curve.FIXED if (idle := len(made.delays_s) - made.attempts) > 0:
            fix = _fixed(made.delays_s, made.attempts)
            yield f"{made.attempts} attempts leave {idle} of {len(made.delays_s)} delays without effect; write {fix}"
        case Curve.EXPONENTIAL if made.base_s > made.max_s:
            fix = _fixed((made.max_s,), made.attempts)
            yield f"base_s ({made.base_s:g}) has no effect above max_s ({made.max_s:g}); write {fix}"
        case Curve.EXPONENTIAL if made.base_s == 0 or (made.factor == 1 and made.jitter == 0):
            yield f"these delays do not grow; write {_fixed((made.base_s,), made.attempts)}"


def _meant(made: RetryPolicy, given: Mapping[str, Any], curve: Curve) -> str:
    if curve is Curve.FIXED:
        return _fixed(made.delays_s, made.attempts)
    fields = [f"{name}={given[name]!r}" for name, of in CURVES_OF_FIELDS.items() if of is curve and name in given]
    return f"RetryPolicy.exponential({', '.join([*fields, f'attempts={made.attempts}'])})"


def _fixed(delays: Sequence[Any], attempts: int | None = None) -> str:
    """The line that gives these delays; those beyond the last attempt are left out."""
    count = len(delays) if attempts is None else attempts
    used = [repr(one).removesuffix(".0") for one in delays[: max(count, 1)]]
    return f"RetryPolicy.fixed({', '.join([*used, *([f'attempts={count}'] if count != len(used) else [])])})"


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


def jitter(job_id: str, retry: int) -> float:
    """The number in [0, 1) that spreads the `retry`-th retry of a job: always the same, so the log tells it."""
    digest = blake2b(b"%d/%s" % (retry, job_id.encode()), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


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
