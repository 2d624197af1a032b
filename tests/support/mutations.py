"""Real records made wrong: in their bytes, in the JSON or MessagePack of their values, their keys, their headers."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Any, Final

from msgspec import msgpack

from tests.support.memory_broker import UNREADABLE

Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True)
class Written:
    """What a producer gives: a topic without its prefix, key, value and headers; and how it was made wrong."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Any = None
    mutation: str = "none"


class Literal(bytes):
    """JSON, or what is not quite JSON, that goes into a value as it is."""


#: Numbers that no double holds, or no reader of ours.
HUGE: Final = [
    *(b"1e400", b"-1e400", b"1" + b"0" * 400, b"-1" + b"0" * 400, b"1" * 5000, b"1" * 400 + b".5", b"1e" + b"9" * 30),
    *(b"NaN", b"Infinity", b"-Infinity", b"[1,1e309]", b'{"n":1e999}'),
]
#: What no writer of JSON writes, or not for a field of ours.
LITERALS: Final = [
    *HUGE,
    *(b"1e-400", b"-0", b"0.0", b"1e15", b"01", b"+1", b".5"),
    *(b'"\\ud800"', b'"\\udc00"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\xed\xa0\x80"', b'"\xff"', b'"\xc3("'),
    *(
        b'"\\u0000"',
        b'"a\\u0000b"',
        b'"\x00"',
        b'"\t"',
        b'"\\x"',
        b'"',
        b"'a'",
        b"nul",
        b"",
        b"/**/1",
        b"\xef\xbb\xbf1",
    ),
    *(b"[" * 99 + b"]" * 99, b"[" * 150 + b"]" * 150, b"[" * 2_000, b'{"a":' * 120 + b"1" + b"}" * 120),
    *(b'{"a":1,"a":2}', b'{"\\u0000":1}', b'{"\\ud800":1}', b'{"\xff":1}', b"[1,]", b'{"type":"job.create"}'),
]
VALUES: Final = [
    *(
        None,
        True,
        False,
        [],
        {},
        [[]],
        {"": 0},
        "",
        "0",
        "5",
        " ",
        "\n",
        "null",
        "x" * 300,
        "é" * 10_001,
        "\U0001f600",
    ),
    *(0, 1, -1, 1.5, 5.0, 127, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**63, 2**64, -(2**63) - 1, 10**30, 1e300),
    *("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+10:00", "2026-02-30T00:00:00Z", "2026-01-01", "1800000000"),
    *("Enqueued", "Succeeded", "Nowhere", "job.create", "run.failed", "1.0", "2.0", "bnVsbA==", "default", "q0"),
    *("01a31bcf-c400-8000-8000-00000000002a", "01a31bcf-c400-8fff-8000-00000000002a", "01a31bcf-c400-4000-8000-0"),
]
NAMES: Final = [
    *("type", "id", "source", "specversion", "subject", "time", "data", "data_base64", "traceparent", "extra", ""),
    *("task", "queue", "job_id", "lease", "worker", "version", "run_at", "retry", "parent", "snapshot", "result"),
    *("a" * 300, "a\x00", "é", "Type", "job-id"),
]
BYTES: Final = [
    b"\x00",
    b"\xff",
    b"\xc3(",
    b"\xed\xa0\x80",
    b"\\",
    b'"',
    b"{",
    b"}",
    b"[",
    b",",
    b"\xef\xbb\xbf",
    b"\n",
]
KEYS: Final = [None, b"", b"x", b"lane", b"worker:", b"\xff\xfe", b"\x00", b"k" * 300_000, b"01a31bcf", "é".encode()]
HEADER_NAMES: Final = [
    "ce_specversion",
    "ce_id",
    "ce_type",
    "ce_source",
    "ce_data",
    "CE_ID",
    "content-type",
    "",
    "é",
    "h",
]
HEADER_VALUES: Final = [
    None,
    b"",
    b"1.0",
    b"job.create",
    b"\xff",
    b"\x00",
    b"a" * 1_001,
    b"application/json",
    b"text/plain",
]


# --- JSON ---


def written(value: Any, ascii_only: bool) -> bytes:
    """A value as JSON; objects are lists of pairs, in which names may repeat."""
    if isinstance(value, Literal):
        return bytes(value)
    if isinstance(value, Pairs):
        return (
            b"{"
            + b",".join(written(name, ascii_only) + b":" + written(one, ascii_only) for name, one in value)
            + b"}"
        )
    if isinstance(value, list):
        return b"[" + b",".join(written(one, ascii_only) for one in value) + b"]"
    return json.dumps(value, ensure_ascii=ascii_only).encode()


class Pairs(list[tuple[Any, Any]]):
    """A JSON object."""


@lru_cache(maxsize=4_000)
def parsed(value: bytes) -> Any:
    return json.loads(value, object_pairs_hook=Pairs)


def copied(value: Any) -> Any:
    if isinstance(value, Pairs):
        return Pairs((name, copied(one)) for name, one in value)
    return [copied(one) for one in value] if isinstance(value, list) else value


def places(around: list[Any]) -> Iterator[tuple[list[Any], int]]:
    """Where something stands: an object or array, and the index in it."""
    for index, one in enumerate(around):
        yield around, index
        value = one[1] if isinstance(around, Pairs) else one
        if isinstance(value, list):
            yield from places(value)


def _odd(random: Random) -> Any:
    return copied(random.choice(VALUES))  # what follows may change it


def _set(around: list[Any], index: int, value: Any) -> None:
    around[index] = (around[index][0], value) if isinstance(around, Pairs) else value


def _get(around: list[Any], index: int) -> Any:
    return around[index][1] if isinstance(around, Pairs) else around[index]


def _removed(random: Random, around: list[Any], index: int) -> None:
    del around[index]


def _renamed(random: Random, around: list[Any], index: int) -> None:
    around[index] = (random.choice(NAMES), _get(around, index))


def _doubled(random: Random, around: list[Any], index: int) -> None:
    around.insert(random.randint(0, len(around)), around[index])
    if random.random() < 0.5:
        _set(around, index, _odd(random))


def _added(random: Random, around: list[Any], index: int) -> None:
    value = _odd(random) if random.random() < 0.5 else Literal(random.choice(LITERALS))
    around.append((random.choice(NAMES), value) if isinstance(around, Pairs) else value)


def _replaced(random: Random, around: list[Any], index: int) -> None:
    _set(around, index, _odd(random))


def _literal(random: Random, around: list[Any], index: int) -> None:
    _set(around, index, Literal(random.choice(LITERALS)))


def _huge(random: Random, around: list[Any], index: int) -> None:
    _set(around, index, Literal(random.choice(HUGE)))


def _nested(random: Random, around: list[Any], index: int) -> None:
    depth = random.choice([1, 1, 98, 99, 100, 101, 3_000])
    inner = written(_get(around, index), ascii_only=True)
    opened, closed = random.choice([(b"[", b"]"), (b'{"a":', b"}")])
    _set(around, index, Literal(opened * depth + inner + closed * depth))


def _spoilt_text(random: Random, around: list[Any], index: int) -> None:
    """Bytes inside of a text that are no UTF-8, or no character that it may hold."""
    text = _get(around, index)
    inner = written(text if isinstance(text, str) else "text", ascii_only=False)
    at = random.randint(1, len(inner) - 1)
    _set(around, index, Literal(inner[:at] + random.choice([*BYTES, b"\\u0000", b"\\ud800", b"\\q"]) + inner[at:]))


def _spoilt_name(random: Random, around: list[Any], index: int) -> None:
    name = written(around[index][0], ascii_only=False)
    at = random.randint(1, len(name) - 1)
    around[index] = (
        Literal(name[:at] + random.choice([*BYTES, b"\\u0000", b"\\ud800"]) + name[at:]),
        around[index][1],
    )


def _exchanged(random: Random, around: list[Any], index: int) -> None:
    other = random.randrange(len(around))
    first, second = _get(around, index), _get(around, other)
    _set(around, index, second)
    _set(around, other, first)


def _changed_a_little(random: Random, around: list[Any], index: int) -> None:
    said = _get(around, index)
    if isinstance(said, str):
        ends = ["\n", "\x00", " ", "é", "Z", "0" * 1_000]
        said = random.choice([said + random.choice(ends), said.upper(), said[:-1], "\n" + said])
    elif isinstance(said, int | float):
        said = random.choice([said + 1, said - 1, -said, said * 2**40, str(said), float(said), [said]])
    _set(around, index, said)


Change = Callable[[Random, list[Any], int], None]
ANYWHERE: Final[list[Change]] = [
    _removed, _doubled, _added, _replaced, _replaced, _literal, _literal, _huge, _huge, _nested, _spoilt_text,
    _spoilt_text, _exchanged, _changed_a_little, _changed_a_little,
]  # fmt: skip
IN_OBJECTS: Final[list[Change]] = [*ANYWHERE, _renamed, _spoilt_name]


def _json(random: Random, one: Written) -> Written:
    """One or two things in the JSON of the value."""
    try:
        document = copied(parsed(one.value or b""))
    except ValueError:
        return _bytes(random, one)
    said = []
    for _ in range(random.choice([1, 1, 1, 2])):
        found = list(places([document]))
        around, index = random.choice(found[1:] or found)
        change = random.choice(IN_OBJECTS if isinstance(around, Pairs) else ANYWHERE)
        change(random, around, index)
        said.append(change.__name__)
    return replace(one, value=written(document, random.random() < 0.5), mutation="json" + "".join(said))


# --- bytes ---


def _bits(random: Random, value: bytes) -> bytes:
    changed = bytearray(value or b"\x00")
    for _ in range(random.choice([1, 1, 2, 8])):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _inserted(random: Random, value: bytes) -> bytes:
    at = random.randint(0, len(value))
    return value[:at] + random.choice([*BYTES, random.randbytes(3)]) + value[at:]


def _cut(random: Random, value: bytes) -> bytes:
    return value[: random.randint(0, len(value))]


def _part_left_out(random: Random, value: bytes) -> bytes:
    at = random.randint(0, len(value))
    return value[:at] + value[at + random.randint(1, 20) :]


def _part_repeated(random: Random, value: bytes) -> bytes:
    at = random.randint(0, len(value))
    return value[:at] + value[max(at - random.randint(1, 20), 0) :]


def _surrounded(random: Random, value: bytes) -> bytes:
    return random.choice([b" " + value, b"\xef\xbb\xbf" + value, value + b"\n", value + value, b"[" + value + b"]"])


def _nothing(random: Random, value: bytes) -> bytes | None:
    return random.choice([None, b"", b"null", b"{}", b"[]", b"0", b'""'])


def _garbage(random: Random, value: bytes) -> bytes:
    return random.randbytes(random.randint(1, 200))


def _too_long(random: Random, value: bytes) -> bytes:
    """More than is accepted, or just so much, in a record that Kafka takes."""
    length = random.choice([10_001, 1_048_576 - len(value), 1_048_577, 1_300_000])
    return random.choice([value + b" " * length, value[:-1] + b',"x":"' + b"x" * length + b'"}'])


OF_BYTES: Final = [
    _bits, _bits, _inserted, _inserted, _cut, _part_left_out, _part_repeated, _surrounded, _nothing, _garbage,
]  # fmt: skip


def _bytes(random: Random, one: Written) -> Written:
    change = _too_long if random.random() < 0.004 else random.choice(OF_BYTES)
    return replace(one, value=change(random, one.value or b""), mutation=f"bytes{change.__name__}")


# --- MessagePack ---


def _msgpack(random: Random, one: Written) -> Written:
    """The records of `state`: an element of an array replaced, left out, added."""
    if one.value is None or random.random() < 0.4:
        return _bytes(random, one)
    said = msgpack.decode(one.value)
    around = said
    while isinstance(around, list) and around and random.random() < 0.5:
        inner = [each for each in around if isinstance(each, list)]
        if not inner:
            break
        around = random.choice(inner)
    if not isinstance(around, list) or not around:
        return _bytes(random, one)
    index = random.randrange(len(around))
    if (kind := random.choice(["replaced", "removed", "added"])) == "removed":
        del around[index]
    else:
        value = random.choice([each for each in VALUES if not isinstance(each, int) or -(2**63) <= each < 2**64])
        around[index : index + (kind == "replaced")] = [value]
    return replace(one, value=msgpack.encode(said), mutation=f"msgpack_{kind}")


# --- the record ---


def _key(random: Random, one: Written) -> Written:
    return replace(one, key=random.choice([*KEYS, _bits(random, one.key or b"k")]), mutation="key")


def _headers(random: Random, one: Written) -> Written:
    """Headers that are wrong, or were never there, or cannot be read."""
    if random.random() < 0.1:
        return replace(one, headers=UNREADABLE, mutation="headers_unreadable")
    headers: Headers = list(one.headers or [])
    for _ in range(random.randint(1, 3)):
        made = (random.choice(HEADER_NAMES), random.choice(HEADER_VALUES))
        if headers and random.random() < 0.7:
            headers[random.randrange(len(headers))] = made
        else:
            headers.append(made)
    return replace(one, headers=headers, mutation="headers")


def _elsewhere(random: Random, one: Written) -> Written:
    topics = ["commands", "reports", "events", "assignments", "delay.now"]
    return replace(one, topic=random.choice(topics), mutation=f"from_{one.topic}")


def mutated(random: Random, one: Written) -> Written:
    """A record with something wrong about it."""
    value = _msgpack if one.topic == "state" else random.choice([_json, _json, _json, _bytes])
    kind = random.choices([value, _key, _headers, _elsewhere], [20, 1, 2 if one.headers is None else 8, 1])[0]
    made = kind(random, one)
    if kind is not value and random.random() < 0.3:
        both = value(random, made)
        made = replace(both, mutation=f"{made.mutation}+{both.mutation}")
    return made
