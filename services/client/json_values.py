"""Values as JSON; what would change or fail on its way to a worker is refused."""

from typing import Any, Final

from joblog.streams.contract.cloudevents import DEPTH_MAX, check_text
from joblog.streams.contract.codec import BACKSLASH
from joblog.streams.errors import ContractError, InvalidData
from msgspec import json, to_builtins
from pydantic import BaseModel


def _other(value: Any) -> Any:
    """Types that msgspec does not know."""
    if isinstance(value, BaseModel):
        # By the fields' names, which the worker reads whatever the aliases are; without what it computes itself.
        return value.model_dump(mode="json", by_alias=False, round_trip=True)
    raise NotImplementedError(f"objects of type {type(value).__qualname__} are not supported")


_LEVELS_AROUND_MAX: Final = 2
_encode: Final = json.Encoder(enc_hook=_other).encode


def encode_json(value: Any, what: str, levels_around: int = 1) -> bytes:
    """The JSON of a value, from which a worker makes an equal one where a parameter is annotated with its type.

    - JSON's types, nested, with any integer; bytes, as base64; tuples, sets and frozensets.
    - datetime, date, time, timedelta, UUID, Decimal, enums.
    - dataclasses, TypedDicts and pydantic models. Bytes inside of a pydantic model or pydantic dataclass are as
      its own config says: `ser_json_bytes="base64", val_json_bytes="base64"` suits both.
    - msgspec structs, for parameters of another type with the same fields.

    Without an annotation, and in a job's parameters, what arrives is what JSON has: bytes stay base64.

    Raises InvalidData, naming `what`, for anything else, and for what JSON or Postgres cannot represent: NaN and
    infinite numbers, NUL characters, lone surrogates, depth beyond a hundred levels. Those of the command that are
    around the value count: `data`, and for the parameters of a new job their object.
    """
    try:
        text = _encode(value)
        if _is_suspect(text):
            check_text(to_builtins(value, enc_hook=_other, str_keys=True), levels_around=levels_around)
    except ContractError as exc:
        raise InvalidData(f"{what}: {exc.reason}") from exc
    except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as exc:
        raise InvalidData(f"{what} cannot be written as JSON: {exc}") from exc
    return text


def _is_suspect(text: bytes) -> bool:
    """Whether a value must be checked part by part: the encoder writes NaN and infinity as null."""
    return (
        b"null" in text
        or (BACKSLASH in text and b"\\u0000" in text)
        or (len(text) > DEPTH_MAX and text.count(b"[") + text.count(b"{") > DEPTH_MAX - _LEVELS_AROUND_MAX)
    )
