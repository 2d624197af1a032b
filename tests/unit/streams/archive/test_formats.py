"""Records come back from files byte for byte, in both formats."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblog.streams.archive.lines import Archived, LineWriter, line, read_lines, record_of
from joblog.streams.archive.parquet import ParquetWriter, read_parquet

from tests.support.messages import JSON

#: JSON as electors write it, and what else may lie in a topic.
EVENTS = st.builds(
    lambda data, kind: b'{"type":"job.%b","subject":"j","time":"2027-01-01T00:00:00.000Z","data":%b}' % (kind, data),
    st.sampled_from([b'{"queue":"q","task":"t","state":"Failed"}', b"[]", b"{}", b'{"queue":5}']),
    st.sampled_from([b"failed", b"\xc3\xbc", b'\\"', b"\xff"]),
)
VALUES = st.none() | st.binary(max_size=40) | EVENTS | JSON.map(lambda value: json.dumps(value).encode())
HEADERS = st.none() | st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=8)), max_size=3)
RECORDS = st.builds(
    Archived,
    lane=st.integers(0, 4_095),
    offset=st.integers(0, 2**62),
    timestamp_ms=st.integers(-1, 2**53),
    key=st.none() | st.binary(max_size=12),
    value=VALUES,
    headers=HEADERS,
)


@settings(max_examples=500)
@given(RECORDS)
def test_a_record_is_one_line(record: Archived) -> None:
    text = line(record)
    assert text.count(b"\n") == 1
    assert record_of(text) == record


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
@settings(max_examples=40, deadline=None)
@given(portions=st.lists(st.lists(RECORDS, max_size=6), max_size=4))
def test_a_file_holds_its_records(kind: str, portions: list[list[Archived]]) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / f"events.{kind}"
        writer: Any = ParquetWriter(path) if kind == "parquet" else LineWriter(path, is_packed=kind.endswith("gz"))
        for records in portions:
            writer.write(records)
        writer.close()
        found = list(read_parquet(path) if kind == "parquet" else read_lines(path))
    assert found == [record for records in portions for record in records]
