import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.worker.execution.failures import (
    DETAILS_BYTES_MAX,
    DETAILS_LINES_MAX,
    MESSAGE_BYTES_MAX,
    describe,
    keepable,
    last_lines,
    stack_of,
    type_name,
)


class Broken(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("cannot even say it")


def raised(error: Exception) -> Exception:
    """The error with the traceback of a raise."""

    def throw() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        throw()
    return caught.value


def test_an_exception_is_described_by_type_bases_text_and_traceback() -> None:
    described = describe(raised(KeyError("k")))
    assert (described.type, described.message) == ("KeyError", "'k'")
    assert described.types == ("KeyError", "LookupError", "Exception", "BaseException")
    assert described.details.startswith("Traceback")
    assert "in throw" in described.details


def test_types_of_modules_are_named_with_them() -> None:
    assert type_name(Broken) == f"{__name__}.Broken"


def test_frames_of_the_worker_are_left_out() -> None:
    error = raised(ValueError("x"))
    assert "in raised" in describe(error).details
    details = describe(error, frames_skipped=1).details
    assert "in throw" in details
    assert "in raised" not in details


def test_causes_are_told() -> None:
    second = ValueError("second")
    second.__cause__ = raised(KeyError("first"))
    assert "KeyError: 'first'" in describe(raised(second)).details


def test_an_exception_that_cannot_be_printed_is_described_still() -> None:
    described = describe(raised(Broken()))
    assert described.type.endswith("Broken")
    assert described.message == "<no text: its __str__ raised RuntimeError>"


def test_nul_and_lone_surrogates_are_replaced_everywhere() -> None:
    described = describe(raised(ValueError("a\0b\ud800c")))
    assert described.message == "a\ufffdb\ufffdc"
    assert "\0" not in described.details
    described.details.encode()


@given(st.text(st.characters(exclude_categories=()), max_size=50).map(lambda text: text * 2_000))
def test_messages_have_a_limit_in_bytes(text: str) -> None:
    message = describe(ValueError(text)).message
    assert len(message.encode()) <= MESSAGE_BYTES_MAX
    assert keepable(text).startswith(message)


@given(st.text(max_size=30), st.integers(0, 300), st.integers(0, 400))
def test_details_are_the_last_lines_within_the_limits(line: str, repeats: int, lines: int) -> None:
    text = f"{line * repeats}\n" * lines
    kept = last_lines(text)
    assert keepable(text).endswith(kept)
    assert len(kept.encode()) <= DETAILS_BYTES_MAX
    assert kept.count("\n") <= DETAILS_LINES_MAX


def test_an_endless_recursion_has_details_within_the_limits() -> None:
    def again(n: int) -> int:
        return again(n + 1) + 1

    with pytest.raises(RecursionError) as caught:
        again(0)
    details = describe(caught.value).details
    assert details.rstrip().endswith("maximum recursion depth exceeded")
    assert len(details) <= DETAILS_BYTES_MAX


def test_the_stack_of_a_thread_tells_where_it_is() -> None:
    assert "test_the_stack_of_a_thread" in stack_of(threading.get_ident())


def test_a_thread_that_ended_has_no_stack() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert stack_of(thread.ident or 0) == ""
