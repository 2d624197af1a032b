import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract.codec import VALUE_BYTES_MAX
from joblog.streams.errors import InvalidData
from joblog.streams.outbox.marks import NOTHING, Mark, Row, decode_mark, encode_mark, problem_of

ROWS = st.lists(
    st.builds(
        Row,
        st.integers(1, 2**63 - 1),
        st.just(4),
        st.integers(0, 3),
        st.text(max_size=5),
        st.binary(max_size=20),
        st.floats(0, 2e9),
    ),
    unique_by=lambda row: row.id,
)


def row(row_id: int = 1, lane: int = 0, value: bytes = b"{}", lanes: int = 4) -> Row:
    return Row(row_id, lanes, lane, "job", value, 0.0)


@given(ROWS, ROWS)
def test_a_mark_that_was_written_and_read_holds_its_rows_and_no_others(sent: list[Row], others: list[Row]) -> None:
    mark = decode_mark(encode_mark(Mark.of(sent)))
    assert mark.holds(sent) == [one.id for one in sent]
    named = {(one.id, one.value) for one in sent}
    assert mark.holds(others) == [one.id for one in others if (one.id, one.value) in named]


def test_a_row_that_has_the_id_of_another_one_is_not_taken_for_it() -> None:
    assert Mark.of([row(value=b"before the backup was restored")]).holds([row(value=b"after it")]) == []


def test_no_row_was_relayed_by_an_outbox_without_a_mark() -> None:
    assert NOTHING.holds([row()]) == []


@pytest.mark.parametrize("value", [b"", b"{broken", b'{"rows": [[1]]}', b'{"rows": [["1", "f"]]}', b"\xff", b"[]"])
def test_what_no_relay_has_written_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidData, match="mark of an outbox"):
        decode_mark(value)


def test_a_row_that_can_be_sent_has_no_problem() -> None:
    assert [problem_of(row(lane=lane, value=b"x" * VALUE_BYTES_MAX), 4) for lane in (0, 3)] == [None, None]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (row(lanes=5), "written for 5 lanes, but there are 4: set JOBLOG_LANES"),
        (row(lane=4), "there is no lane 4: lanes are 0 to 3"),
        (row(lane=-1), "there is no lane -1"),
        (row(value=b"x" * (VALUE_BYTES_MAX + 1)), f"more than the {VALUE_BYTES_MAX} of any command"),
    ],
)
def test_a_row_that_can_never_be_sent_has_one(broken: Row, why: str) -> None:
    assert why in (problem_of(broken, 4) or "")
