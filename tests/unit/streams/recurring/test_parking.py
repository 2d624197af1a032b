"""Which unreadable records still have to become dead letters."""

from joblog.streams.errors import InvalidData
from joblog.streams.recurring.parking import BATCH, Parking, Unreadable, dead_letter
from joblog.streams.recurring.rows import Rows
from joblog.streams.recurring.sender import BY_KEY


def unreadable(offset: int) -> Unreadable:
    return Unreadable(offset, b"a", b"{", [("own", b"1")], InvalidData("no JSON"))


def offsets(parking: Parking) -> list[int]:
    return [one.offset for one in parking.batch()]


def test_what_the_partition_says_is_parked_is_left_alone_whatever_comes_first() -> None:
    parking = Parking()
    for offset in (3, 5, 9):
        parking.add(unreadable(offset))
    parking.read(b"5")
    assert offsets(parking) == [9]
    parking.add(unreadable(5))
    parking.add(unreadable(12))
    assert offsets(parking) == [9, 12]


def test_an_earlier_offset_or_none_at_all_takes_nothing_back() -> None:
    parking = Parking(through=7)
    for value in (b"3", b"", None, b"-1", b"x", b"\xff", "\N{SUPERSCRIPT TWO}".encode()):
        parking.read(value)
    assert parking.through == 7


def test_many_are_parked_in_several_batches() -> None:
    parking = Parking()
    for offset in range(BATCH + 2):
        parking.add(unreadable(offset))
    assert offsets(parking) == list(range(BATCH))
    parking.done(BATCH - 1)
    assert offsets(parking) == [BATCH, BATCH + 1]


def test_a_dead_letter_has_the_record_as_it_came_and_says_where_it_was_and_why() -> None:
    made = dead_letter(unreadable(4), "j.recurring", 2, "j.deadletters")
    assert (made.topic, made.partition, made.key, made.value) == ("j.deadletters", BY_KEY, b"a", b"{")
    assert made.headers == [
        ("joblog-reason-code", b"invalid_data"),
        ("joblog-reason", b"no JSON"),
        ("joblog-role", b"recurring"),
        ("joblog-topic", b"j.recurring"),
        ("joblog-partition", b"2"),
        ("joblog-offset", b"4"),
        ("own", b"1"),
    ]


def test_what_cannot_be_read_is_told_in_a_line_and_stops_nothing() -> None:
    rows = Rows()
    for key, value in ((b"a", b"{"), (b"\xff", b"{}"), (b"a|pause", b'{"paused": 3}'), (b"a", b"[" * 100_000)):
        error = rows.unreadable(key, value)
        assert error is not None
        assert "\n" not in error.reason
    assert rows.unreadable(b"a|pause", b'{"paused": true, "at": "2026-01-01T00:00:00Z"}') is None
    assert rows.rows["a"].pause is not None
