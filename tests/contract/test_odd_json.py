"""Messages that are not quite valid: both ways of reading agree on them, and nothing but a refusal is raised."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from joblog.streams.contract import codec
from joblog.streams.errors import ContractError

from tests.support.messages import COMMAND, REPORT, TEXTS, Data, enveloped, outcome


class Literally(str):
    """JSON text that no JSON writer writes."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may repeat."""


TEXTS_ODD = [
    "",
    "5",
    "\x00",
    "é" * 10_001,
    "default\n",
    "Enqueued",
    "job.create",
    "1.0",
    "2.0",
    "bnVsbA==",
    "e30=",
    "é=",
]
TIMES_ODD = [
    *("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+10:00", "2026-02-30T00:00:00Z"),
    *(
        "2026-01-01T00:00:00",
        "2026-01-01",
        "2026-01-01 00:00:00Z",
        "2026-01-01t00:00:00z",
        "1800000000",
        1_800_000_000,
    ),
]
NUMBERS_ODD = [0, -1, 5.0, 1.5, 2**53, 2**63, 2**64, 10**30, -(10**30), 3_155_760_001, True, None]
ODD = [
    *(None, True, [], {}, [[]], {"": 0}, {"a\x00": 1}),
    *map(Literally, ["NaN", "-Infinity", "1e400", "-1e400", "1e-400", "-0", "0.0", "1e2", "01", "1" * 5000]),
    *map(Literally, ['"\\ud800"', '"\\u0000"', '"\\ud83d\\ude00"', "[" * 150 + "]" * 150, "[" * 99 + "]" * 99]),
    *map(Literally, ['{"a":1,"a":2}', "nul", "'a'", "[1,]", '"\\x"', "/*c*/1", "\ufeff1", '"\t"', '{"type":"x"}']),
]
ANY = [*TEXTS_ODD, *TIMES_ODD, *NUMBERS_ODD, *ODD]
KEYS = [
    *("type", "extra", "data", "data_base64", "subject", "time", "id", "traceparent", "specversion", "causationid"),
    *("queue", "task", "run_at", "snapshot", "parent", "parameters", "value", "retry", "job_id", "Task", "args"),
]


@st.composite
def bent(draw: st.DrawFn, valid: st.SearchStrategy[Data]) -> bytes:
    """A valid message with something in it replaced, left out, added or said twice; or perhaps broken."""
    message = as_pairs(draw(valid))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        bend(draw, *draw(st.sampled_from(list(places(message)))))
    data = text_of(message, draw(st.booleans())).encode()
    if draw(st.integers(0, 9)) == 9:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data


def bend(draw: st.DrawFn, around: list[Any], index: int) -> None:
    name, said = around[index] if isinstance(around, Pairs) else (None, around[index])
    odd = draw(st.sampled_from(odd_ones(said)) | st.sampled_from(ANY))
    match draw(st.sampled_from(["replace", "replace", "replace", "add", "repeat", "leave out"])):
        case "replace":
            around[index] = odd if name is None else (name, odd)
        case "add":
            around.append(odd if name is None else (draw(st.sampled_from([*KEYS, name])), odd))
        case "repeat":
            around.append(around[index])
        case "leave out":
            del around[index]


def odd_ones(said: Any) -> list[Any]:
    """What is nearly the same, and yet is not."""
    if isinstance(said, str):
        ends = ["\n", "\x00", " ", "é", "Z", "0" * 1000]
        return [*(said + end for end in ends), "\n" + said, said.upper(), [said], *TEXTS_ODD, *TIMES_ODD]
    if isinstance(said, int | float):
        return [*NUMBERS_ODD, *ODD, str(said), [said]]
    return ANY


def as_pairs(value: Any) -> Any:
    if isinstance(value, dict):
        return Pairs((name, as_pairs(one)) for name, one in value.items())
    return [as_pairs(one) for one in value] if isinstance(value, list) else value


def places(around: list[Any]) -> Iterator[tuple[list[Any], int]]:
    """Where something stands: an object or array, and the index in it."""
    for index, one in enumerate(around):
        yield around, index
        value = one[1] if isinstance(around, Pairs) else one
        if isinstance(value, list):
            yield from places(value)


def text_of(value: Any, ascii_only: bool) -> str:
    if isinstance(value, Literally):
        return str(value)
    if isinstance(value, Pairs):
        pairs = (f"{json.dumps(name, ensure_ascii=ascii_only)}:{text_of(one, ascii_only)}" for name, one in value)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(text_of(one, ascii_only) for one in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


@settings(max_examples=300)
@given(bent(COMMAND.map(enveloped)))
def test_what_the_fast_way_makes_of_a_command_the_careful_way_makes_of_it_too(value: bytes) -> None:
    assert outcome(codec.read_command, value, None) == outcome(codec._read_command_carefully, value, None)


@given(bent(REPORT) | st.binary())
def test_a_report_is_read_or_refused_whatever_it_is(value: bytes) -> None:
    with suppress(ContractError):
        codec.read_report(value)


@given(st.binary() | st.text().map(str.encode))
def test_garbage_is_refused_either_way(value: bytes) -> None:
    assert outcome(codec.read_command, value, None) == "refused"
    assert outcome(codec._read_command_carefully, value, None) == "refused"


@given(
    bent(COMMAND.map(enveloped)) | bent(COMMAND) | st.binary(),
    st.lists(st.tuples(TEXTS, st.none() | st.binary(max_size=9) | TEXTS), max_size=2),
    st.lists(st.sampled_from(["ce_id", "ce_source", "content-type", "ce_data", "ce_traceparent"]), max_size=5),
    st.sampled_from(["1.0", "2.0", None]),
)
def test_a_command_is_read_or_refused_whatever_its_headers(
    value: bytes, odd: list[tuple[str, Any]], names: list[str], specversion: str | None
) -> None:
    texts = [(name, "application/json") for name in names]
    with suppress(ContractError):
        codec.read_command(value, [("ce_specversion", specversion), ("ce_type", b"job.create"), *texts, *odd])
