from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.client.json_values import encode_json
from joblog.streams.errors import InvalidData
from msgspec import json
from pydantic import BaseModel

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@dataclass
class Point:
    x: int
    label: str


class Model(BaseModel):
    at: datetime
    ratio: float = 0.5


class Color(Enum):
    RED = "red"


@given(plain)
def test_json_values_come_back_as_they_were(value: Any) -> None:
    assert json.decode(encode_json(value, "args")) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Point(1, "a"), b'{"x":1,"label":"a"}'),
        (Model(at=datetime(2026, 1, 2, tzinfo=UTC)), b'{"at":"2026-01-02T00:00:00Z","ratio":0.5}'),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.10"), b'"1.10"'),
        (Color.RED, b'"red"'),
        ((1, 2), b"[1,2]"),
        ("grüße\\u0000", '"grüße\\\\u0000"'.encode()),
        (None, b"null"),
    ],
)
def test_values_beyond_json_are_written_in_its_types(value: Any, text: bytes) -> None:
    assert encode_json(value, "args") == text


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


cyclic: list[Any] = []
cyclic.append(cyclic)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([float("nan")], "finite"),
        ({"a": [1, float("inf")]}, "finite"),
        (Model(at=datetime(2026, 1, 2, tzinfo=UTC), ratio=float("-inf")), "finite"),
        (["a\x00b"], "NUL"),
        ({"a\x00b": 1}, "NUL"),
        ("\ud800", "surrogates"),
        (object(), "object"),
        (nested(101), "nested"),
        (cyclic, "JSON"),
    ],
    ids=["nan", "infinity", "model", "nul", "nul in a key", "surrogate", "object", "depth", "cycle"],
)
def test_what_would_be_lost_on_the_way_is_refused_by_name(value: Any, complaint: str) -> None:
    with pytest.raises(InvalidData, match=complaint) as refused:
        encode_json(value, "args")
    assert "args" in str(refused.value)


def test_a_hundred_levels_pass() -> None:
    assert encode_json(nested(99), "args").startswith(b"[[[")
