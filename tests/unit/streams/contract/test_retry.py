import pickle
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from joblog.streams.contract.fields import SECONDS_MAX
from joblog.streams.contract.retry import DEFAULT_RETRY, Curve, OnExceeded, Retry, RetryPolicy, delay_s, is_retried
from joblog.streams.errors import SettingsError
from pydantic import ValidationError

from tests.support.messages import fitting, meaning

LATEST_DRAW = 1 - 2**-53


@pytest.mark.parametrize(
    ("retry", "shortest_s", "longest_s"),
    [
        (1, 15, 44),
        (2, 16, 74),
        (3, 31, 118),
        (4, 96, 212),
        (5, 271, 416),
        (6, 640, 814),
        (7, 1311, 1514),
        (8, 2416, 2648),
        (9, 4111, 4372),
        (10, 6576, 6866),
    ],
)
def test_the_default_curve_is_hangfires(retry: int, shortest_s: int, longest_s: int) -> None:
    assert delay_s(DEFAULT_RETRY, retry, 0.0) == shortest_s
    assert delay_s(DEFAULT_RETRY, retry, LATEST_DRAW) == longest_s


def test_the_default_policy_is_ten_retries_of_any_exception_and_then_failed() -> None:
    hangfire = Retry(attempts=10, curve=Curve.HANGFIRE, on_exceeded=OnExceeded.FAIL, count_lost=False)
    assert hangfire == DEFAULT_RETRY
    assert is_retried(DEFAULT_RETRY, ("builtins.ValueError",))
    assert is_retried(DEFAULT_RETRY, ())


def test_no_delay_is_longer_than_a_hundred_years() -> None:
    assert delay_s(Retry(attempts=1000), 1000, 0.5) == SECONDS_MAX
    endless = Retry(curve=Curve.EXPONENTIAL, base_s=SECONDS_MAX, factor=100.0, max_s=SECONDS_MAX)
    assert delay_s(endless, 1000, 0.0) == SECONDS_MAX


def test_fixed_delays_are_taken_in_turn_and_the_last_one_repeats() -> None:
    policy = Retry(curve=Curve.FIXED, delays_s=(0.0, 2.5, 60.0))
    assert [delay_s(policy, retry, 0.9) for retry in (1, 2, 3, 4, 1000)] == [0.0, 2.5, 60.0, 60.0, 60.0]


def test_an_exponential_delay_grows_by_its_factor_up_to_its_maximum() -> None:
    policy = Retry(curve=Curve.EXPONENTIAL, base_s=2.0, factor=3.0, max_s=50.0)
    assert [delay_s(policy, retry, 0.9) for retry in (1, 2, 3, 4, 5)] == [2.0, 6.0, 18.0, 50.0, 50.0]


def test_jitter_takes_its_share_off_the_delay() -> None:
    policy = Retry(curve=Curve.EXPONENTIAL, base_s=10.0, factor=2.0, jitter=0.5)
    assert delay_s(policy, 1, 0.0) == 10.0
    assert delay_s(policy, 1, 0.5) == 7.5
    assert delay_s(policy, 1, LATEST_DRAW) == pytest.approx(5.0)


NOT_FOUND = ("shop.errors.NotFound", "builtins.LookupError", "builtins.Exception")


@pytest.mark.parametrize(
    ("only_on", "except_on", "retried"),
    [
        ((), (), True),
        (("NotFound",), (), True),
        (("shop.errors.NotFound",), (), True),
        (("LookupError",), (), True),
        (("builtins.Exception",), (), True),
        (("errors.NotFound",), (), False),
        (("ValueError",), (), False),
        (("ValueError", "LookupError"), (), True),
        ((), ("NotFound",), False),
        ((), ("Exception",), False),
        ((), ("ValueError",), True),
        (("NotFound",), ("LookupError",), False),
    ],
)
def test_a_policy_names_exceptions_bare_or_with_their_module_and_their_bases_count(
    only_on: tuple[str, ...], except_on: tuple[str, ...], retried: bool
) -> None:
    assert is_retried(Retry(only_on=only_on, except_on=except_on), NOT_FOUND) is retried


def test_an_exception_without_a_module_matches_by_its_name() -> None:
    assert is_retried(Retry(only_on=("Timeout",)), ("Timeout",))


def test_policy_and_twin_have_the_same_fields_and_defaults() -> None:
    twin = {name: getattr(DEFAULT_RETRY, name) for name in Retry.__struct_fields__}
    assert RetryPolicy().model_dump() == twin


@pytest.mark.parametrize(
    ("made", "written_out"),
    [
        (RetryPolicy.fixed(1, 2, 4), {"attempts": 3, "curve": Curve.FIXED, "delays_s": (1, 2, 4)}),
        (
            RetryPolicy.fixed(timedelta(minutes=1), attempts=5),
            {"attempts": 5, "curve": Curve.FIXED, "delays_s": (60,)},
        ),
        (
            RetryPolicy.exponential(base_s=2, factor=3, max_s=50, jitter=0.5, attempts=4),
            {"attempts": 4, "curve": "exponential", "base_s": 2, "factor": 3, "max_s": 50, "jitter": 0.5},
        ),
        (RetryPolicy.exponential(), {"curve": Curve.EXPONENTIAL}),
        (RetryPolicy.hangfire(), {}),
        (RetryPolicy.hangfire(3, only_on=("KeyError",)), {"attempts": 3, "only_on": ("KeyError",)}),
        (
            RetryPolicy.none(on_exceeded=OnExceeded.DELETE, lost_max=0),
            {"attempts": 0, "on_exceeded": "delete", "lost_max": 0},
        ),
    ],
)
def test_a_policy_made_by_name_is_the_one_written_out(made: RetryPolicy, written_out: dict[str, Any]) -> None:
    assert made == RetryPolicy(**written_out)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"attempts": 3, "delays_s": [1, 2, 4]}, "write RetryPolicy.fixed(1, 2, 4)"),
        ({"delays_s": (60,)}, "write RetryPolicy.fixed(60, attempts=10)"),
        ({"attempts": 2, "delays_s": [1, 2, 4]}, "write RetryPolicy.fixed(1, 2)"),
        ({"curve": Curve.EXPONENTIAL, "delays_s": [1]}, "write RetryPolicy.fixed(1, attempts=10)"),
        ({"base_s": 2, "jitter": 0.5}, "write RetryPolicy.exponential(base_s=2, jitter=0.5, attempts=10)"),
        (
            {"factor": 3.0},
            "factor has no effect on this curve; write RetryPolicy.exponential(factor=3.0, ",
        ),
        ({"curve": Curve.FIXED, "delays_s": [1], "max_s": 5}, "write RetryPolicy.exponential(max_s=5, attempts=10)"),
        ({"curve": "hangfire", "jitter": 1}, "write RetryPolicy.exponential(jitter=1, attempts=10)"),
    ],
)
def test_what_the_curve_does_not_read_is_refused_with_the_line_to_write(said: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(line)):
        RetryPolicy(**said)


def test_delays_without_an_attempt_and_bases_above_the_longest_delay_are_refused() -> None:
    with pytest.raises(SettingsError, match=re.escape("1 of 3 delays without effect; write RetryPolicy.fixed(1, 2)")):
        RetryPolicy.fixed(1, 2, 4, attempts=2)
    with pytest.raises(SettingsError, match=re.escape("write RetryPolicy.none()")):
        RetryPolicy.fixed(1, attempts=0)
    with pytest.raises(SettingsError, match=re.escape("write RetryPolicy.none()")):
        RetryPolicy.fixed()
    with pytest.raises(SettingsError, match=re.escape("write RetryPolicy.fixed(10, attempts=10)")):
        RetryPolicy.exponential(base_s=20, max_s=10)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RetryPolicy.none(only_on=("KeyError",)), "only_on has no effect without retries: leave it out"),
        (lambda: RetryPolicy(attempts=0, except_on=("KeyError",)), "except_on has no effect without retries"),
        (lambda: RetryPolicy(only_on=("A", "B"), except_on=("B",)), "B is in only_on and in except_on, which wins"),
        (lambda: RetryPolicy(count_lost=True, lost_max=3), "lost_max has no effect with count_lost=True"),
        (lambda: RetryPolicy(curve=Curve.FIXED, delays_s=(1, 2, 4), attempts=2), "write RetryPolicy.fixed(1, 2)"),
        (lambda: RetryPolicy(curve=Curve.FIXED, delays_s=(1,), attempts=0), "write RetryPolicy.none()"),
        (lambda: RetryPolicy(curve="exponential", base_s=9, max_s=2), "write RetryPolicy.fixed(2, attempts=10)"),
        (lambda: RetryPolicy.exponential(base_s=2, attempts=0), "write RetryPolicy.none()"),
        (lambda: RetryPolicy.exponential(base_s=0), "write RetryPolicy.fixed(0, attempts=10)"),
        (lambda: RetryPolicy.exponential(base_s=3, factor=1, attempts=4), "write RetryPolicy.fixed(3, attempts=4)"),
        (lambda: RetryPolicy.fixed([1, 2, 4]), "write RetryPolicy.fixed(1, 2, 4)"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(only_on="KeyError"), "write only_on=('KeyError',)"),
        (lambda: RetryPolicy(except_on=KeyError), "write except_on=('KeyError',)"),
        (lambda: RetryPolicy(only_on=(KeyError, "A")), "write only_on=('KeyError', 'A')"),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_line_to_write(make: Callable[[], object], told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        make()


@pytest.mark.parametrize(
    "wrong",
    [
        {"curve": "bogus", "delays_s": [1]},
        {"curve": [], "jitter": 1},
        {"bogus": 1},
        {"attempts": -1},
        {"attempts": 1_001},
        {"attempts": 1.5},
        {"curve": "fixed", "delays_s": (-1,)},
        {"curve": "fixed", "delays_s": (float("nan"),)},
        {"curve": "fixed", "delays_s": (float("inf"),)},
        {"curve": "exponential", "factor": 0.5},
        {"curve": "exponential", "jitter": 2},
        {"on_exceeded": "bury"},
        {"lost_max": -1},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_a_mistake_that_names_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="RetryPolicy: .*" + "|".join(wrong)):
        RetryPolicy(**wrong)
    with pytest.raises(ValidationError):
        RetryPolicy.model_validate(wrong)


def test_what_is_limited_by_name_is_refused_as_if_written_out() -> None:
    for make in (
        lambda: RetryPolicy.fixed(-1),
        lambda: RetryPolicy.hangfire(-1),
        lambda: RetryPolicy.hangfire(1_001),
    ):
        with pytest.raises(SettingsError, match="RetryPolicy: "):
            make()


def test_policies_that_differ_from_the_default_in_effect_only_are_made() -> None:
    assert RetryPolicy.none(count_lost=True).count_lost
    assert RetryPolicy.exponential(base_s=3, factor=1, jitter=0.5).jitter == 0.5
    assert RetryPolicy(count_lost=True, lost_max=5).count_lost
    assert RetryPolicy.hangfire(0) == RetryPolicy.none()


@given(fitting(RetryPolicy))
def test_a_message_may_carry_what_has_no_effect_and_can_be_copied(said: dict[str, Any]) -> None:
    policy = RetryPolicy.model_validate(said)
    assert meaning(msgspec.convert(policy.model_dump(mode="json"), Retry)) == meaning(policy)
    assert RetryPolicy.model_validate_json(policy.model_dump_json()) == policy == policy.model_copy()
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301 - our own


@given(fitting(RetryPolicy))
def test_a_policy_that_was_made_can_be_written_out_in_full(said: dict[str, Any]) -> None:
    try:
        made = RetryPolicy(**said)
    except SettingsError:
        return
    assert RetryPolicy(**made.model_dump()) == made
    assert RetryPolicy(**{name: getattr(made, name) for name in RetryPolicy.model_fields}) == made
