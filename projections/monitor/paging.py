"""Cursors: where a page ended, bound to the question it answered."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from joblog.projections.questions import InvalidQuestion
from msgspec import DecodeError, json

_decode: Final = json.Decoder(tuple[str, datetime, tuple[str, ...]]).decode


def encode_cursor(question: Mapping[str, Any], at: datetime, *last: str | int) -> str:
    """A cursor behind the item at `at` that `last` tells from others of that instant."""
    text = json.encode((_digest(question), at, [str(one) for one in last]))
    return urlsafe_b64encode(text).decode().rstrip("=")


def decode_cursor(question: Mapping[str, Any], cursor: str) -> tuple[datetime, tuple[str, ...]]:
    """What `encode_cursor` was given; InvalidQuestion for anything else, also the cursor of another question."""
    try:
        digest, at, last = _decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (DecodeError, Base64Error, UnicodeError, ValueError) as error:
        raise InvalidQuestion("this is no cursor: use next_cursor of the page before, as it came") from error
    if digest != _digest(question):
        raise InvalidQuestion("the cursor belongs to another list: ask with the same filter and order, or without it")
    return at, last


def _digest(question: Mapping[str, Any]) -> str:
    return blake2b(json.encode(question, order="deterministic"), digest_size=8).hexdigest()
