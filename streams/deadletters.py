"""What a record that nobody could apply looks like in the topic `deadletters`: itself, and why it is there."""

from collections.abc import Iterable, Mapping
from typing import Final

#: Headers as confluent-kafka takes and gives them.
Headers = list[tuple[str, str | bytes | None]]

#: A dead letter must fit into a record, whatever it was: the clients send 2,000,000 bytes at most (kafka.py).
VALUE_BYTES_MAX: Final = 1_800_000
KEY_BYTES_MAX: Final = 100_000
HEADERS_BYTES_MAX: Final = 64_000
REASON_CHARACTERS_MAX: Final = 2_000


def headers(
    reason_code: str,
    reason: str,
    role: str,
    topic: str,
    partition: int,
    offset: int,
    extra: Headers | Mapping[str, str | bytes | None] | None = None,
) -> Headers:
    """Headers that say why (`reason_code`: one word; `reason`: one line), who gave up, and where it was.

    The record's own headers (`extra`, as `message.headers()` gives them) follow as they were, as far as
    they fit into `HEADERS_BYTES_MAX`.
    """
    ours = {
        "joblog-reason-code": reason_code,
        "joblog-reason": reason[:REASON_CHARACTERS_MAX],
        "joblog-role": role,
        "joblog-topic": topic,
        "joblog-partition": str(partition),
        "joblog-offset": str(offset),
    }
    own = extra.items() if isinstance(extra, Mapping) else extra or ()
    made: Headers = [(name, text.encode(errors="replace")) for name, text in ours.items()]
    return made + _fitting(own)


def value(raw: bytes | None) -> bytes | None:
    """The record's value as it came, cut after `VALUE_BYTES_MAX`; the headers say where the whole one is."""
    return raw if raw is None else raw[:VALUE_BYTES_MAX]


def key(raw: bytes | None) -> bytes | None:
    """The record's key as it came, cut after `KEY_BYTES_MAX`."""
    return raw if raw is None else raw[:KEY_BYTES_MAX]


def _fitting(own: Iterable[tuple[str, str | bytes | None]]) -> Headers:
    kept: Headers = []
    size = 0
    for name, content in own:
        size += len(name.encode(errors="replace")) + len(content or b"")
        if size > HEADERS_BYTES_MAX:
            break
        kept.append((name, content))
    return kept
