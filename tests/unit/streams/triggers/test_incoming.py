import json
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract.record_headers import Headers
from joblog.streams.errors import ContractError, InvalidData, UndecodableRecord
from joblog.streams.triggers.incoming import IncomingEvent, read_event
from joblog.streams.triggers.records import Record

RECEIVED = datetime(2026, 3, 1, tzinfo=UTC)
EVENT = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "image.uploaded"}
HEADERS: Headers = [(f"ce_{name}", text.encode()) for name, text in EVENT.items()]


def record(value: bytes | None, headers: Headers | None = None) -> Record:
    return Record("uploads", 2, 7, round(RECEIVED.timestamp() * 1000), b"k", value, headers or [])


def event(headers: Headers | None = None, **changes: Any) -> IncomingEvent:
    usual: dict[str, Any] = {
        "id": "e-1", "source": "/shop", "type": "image.uploaded", "subject": None, "time": RECEIVED, "data": None,
        "topic": "uploads", "partition": 2, "offset": 7, "key": b"k", "headers": headers or [],
    }  # fmt: skip
    return IncomingEvent(**usual | changes)


def structured(**changes: Any) -> bytes:
    return json.dumps({**EVENT, **changes}).encode()


def test_a_structured_event_is_read_with_all_its_attributes() -> None:
    value = structured(subject="a.png", time="2026-02-01T10:00:00+02:00", data={"n": 1}, extension="x")
    assert read_event(record(value)) == event(
        subject="a.png", time=datetime(2026, 2, 1, 8, tzinfo=UTC), data={"n": 1}
    )


@pytest.mark.parametrize("data", [None, 1, "text", [1, 2], {"a": None}, True])
def test_the_data_is_any_json_value(data: Any) -> None:
    assert read_event(record(structured(data=data))) == event(data=data)
    assert read_event(record(json.dumps(data).encode(), HEADERS)) == event(HEADERS, data=data)


def test_data_in_base64_is_decoded() -> None:
    assert read_event(record(structured(data_base64=b64encode(b"[1]").decode()))) == event(data=[1])


def test_a_binary_event_has_its_attributes_in_headers() -> None:
    headers: Headers = [*HEADERS, ("ce_subject", b"a.png"), ("content-type", b"application/json; charset=utf-8")]
    assert read_event(record(b'{"n": 1}', headers)) == event(headers, subject="a.png", data={"n": 1})


@pytest.mark.parametrize("value", [None, b""])
def test_a_binary_event_may_have_no_data(value: bytes | None) -> None:
    assert read_event(record(value, HEADERS)) == event(HEADERS)


def test_plain_json_is_named_by_its_place() -> None:
    assert read_event(record(b'{"id": "x", "source": "y"}', [("trace", b"1")])) == event(
        [("trace", b"1")],
        id=f"uploads/2/7@{RECEIVED.timestamp() * 1000:.0f}",
        source="uploads",
        type=None,
        data={"id": "x", "source": "y"},
    )


@pytest.mark.parametrize(
    ("value", "headers", "error", "reason"),
    [
        (None, [("content-type", b"application/cloudevents+json")], UndecodableRecord, "no value"),
        (b"", [], UndecodableRecord, "not JSON"),
        (b"{broken", [], UndecodableRecord, "not JSON"),
        (b'"\xff"', [], UndecodableRecord, "not JSON"),
        (b"NaN", [], UndecodableRecord, "not JSON"),
        (b"[" * 100_000, [], UndecodableRecord, "not JSON"),
        (structured(specversion="0.3"), [], UndecodableRecord, "specversion must be 1.0"),
        (b'{"specversion": "1.0", "id": "1"}', [], InvalidData, "source"),
        (structured(id=""), [], InvalidData, "id"),
        (structured(time="yesterday"), [], InvalidData, "time"),
        (structured(time=5), [], InvalidData, "time"),
        (structured(time="2026-02-01T10:00:00"), [], InvalidData, "zone"),
        (structured(subject="a\x00"), [], InvalidData, "NUL"),
        (b"{}", [("content-type", b"application/cloudevents+json")], UndecodableRecord, "specversion"),
        (b"{}", [("ce_id", b"1")], UndecodableRecord, "no ce_specversion"),
        (b"{}", [("ce_specversion", b"1.0")], InvalidData, "id"),
        (b"{broken", HEADERS, UndecodableRecord, "not JSON"),
        (b"\x89PNG", [*HEADERS, ("content-type", b"image/png")], UndecodableRecord, "content-type"),
        (b"{}", [("x", b"\xff")], UndecodableRecord, "not UTF-8"),
        (b"{}", [("x\udcff", b"")], UndecodableRecord, "the name of a header is not UTF-8"),
    ],
)
def test_what_is_no_event_is_refused_with_its_reason(
    value: bytes | None, headers: Headers, error: type[ContractError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        read_event(record(value, headers))


@given(
    st.one_of(
        st.none(), st.binary(), st.from_regex(r'\{"specversion": ?"1\.0".{0,60}', fullmatch=True).map(str.encode)
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["ce_id", "ce_type", "ce_source", "ce_specversion", "ce_time", "content-type"]),
            st.one_of(st.none(), st.binary(max_size=20), st.just(b"1.0")),
        )
    ),
)
def test_any_bytes_are_an_event_or_a_contract_error(value: bytes | None, headers: Headers) -> None:
    with suppress(ContractError):  # and no other
        found = read_event(record(value, headers))
        if found is None:
            assert value is None
            return
        assert found.id
        assert found.source
        assert found.time.tzinfo is not None


@given(st.integers(min_value=0), st.integers(min_value=0))
def test_records_at_two_places_or_of_two_times_are_two_events(one: int, other: int) -> None:
    for places in ([(one, 0), (other, 0)], [(0, one), (0, other)]):
        found = [read_event(Record("t", 0, offset, time, None, b"1", [])) for offset, time in places]
        assert len({event.id for event in found if event is not None}) == len({one, other})


def test_a_tombstone_is_no_event_and_nothing_wrong() -> None:
    assert read_event(record(None)) is None
    assert read_event(record(None, [("trace", b"1")])) is None


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 10**15, 2**63 - 1])
def test_any_time_that_kafka_keeps_is_a_time(timestamp_ms: int) -> None:
    found = read_event(Record("t", 0, 0, timestamp_ms, None, b"1", []))
    assert found is not None
    assert found.time.year in {1970, 9999}
