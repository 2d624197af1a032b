"""What a record that nobody could apply looks like in the topic `deadletters`: itself, and why it is there."""

from collections.abc import Iterable
from typing import Final

#: A dead letter must fit into a record, whatever it was: librdkafka refuses to send more than 1,000,000 bytes.
VALUE_BYTES_MAX: Final = 800_000
HEADERS_BYTES_MAX: Final = 64_000
REASON_CHARACTERS_MAX: Final = 2_000


def headers(
    reason_code: str,
    reason: str,
    role: str,
    topic: str,
    partition: int,
    offset: int,
    extra: Iterable[tuple[str, bytes | None]] | None = None,
) -> list[tuple[str, bytes]]:
    """Headers that say why (`reason_code`: one word; `reason`: one line), who gave up, and where it was.

    The record's own headers (`extra`, as `message.headers()` gives them) follow as they were, a null as an
    empty one, as far as they fit into `HEADERS_BYTES_MAX`.
    """
    ours = {
        "joblog-reason-code": reason_code,
        "joblog-reason": reason[:REASON_CHARACTERS_MAX],
        "joblog-role": role,
        "joblog-topic": topic,
        "joblog-partition": str(partition),
        "joblog-offset": str(offset),
    }
    return [(name, text.encode(errors="replace")) for name, text in ours.items()] + _fitting(extra or ())


def value(raw: bytes | None) -> bytes | None:
    """The record's value as it came, cut after `VALUE_BYTES_MAX`; the headers say where the whole one is."""
    return raw if raw is None else raw[:VALUE_BYTES_MAX]


def _fitting(extra: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes]]:
    kept: list[tuple[str, bytes]] = []
    size = 0
    for name, content in extra:
        size += len(name.encode(errors="replace")) + len(content or b"")
        if size > HEADERS_BYTES_MAX:
            break
        kept.append((name, content or b""))
    return kept
