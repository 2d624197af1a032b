"""JSON that is passed on without decoding it: arguments, results, parameters."""

from typing import Any

from msgspec import Raw, json

_object = json.Decoder(dict[str, Raw])


def raw(value: Any) -> Raw:
    """A value as JSON text; one that is JSON text already stays as it is."""
    return value if isinstance(value, Raw) else Raw(json.encode(value))


def with_parameter(parameters: bytes, name: str, value: Raw) -> bytes:
    """The JSON object `parameters` with `name` set."""
    return json.encode({**_object.decode(parameters), name: value})


def merged(first: bytes | Raw, second: bytes | Raw) -> bytes:
    """Two JSON objects as one; the second's values win."""
    return json.encode({**_object.decode(first), **_object.decode(second)})
