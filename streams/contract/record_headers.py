"""The headers of a Kafka record, which may be read only once."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from joblog.streams.errors import UndecodableRecord

#: Headers as confluent-kafka takes and gives them.
Headers = list[tuple[str, str | bytes | None]]

#: What Kafka's format needs for each header beside its name and value: two lengths of five bytes at most.
OVERHEAD_BYTES: Final = 10


class HasHeaders(Protocol):
    """A confluent-kafka message, as far as it matters here."""

    def headers(self) -> Any: ...


def headers_of(message: HasHeaders) -> Headers | None:
    """The headers of a record, None for none. To be called once for each message.

    UndecodableRecord for a name that is not UTF-8: confluent-kafka (2.16) raises SystemError then, and kills the
    process when it is asked again.
    """
    try:
        found = message.headers()
    except (SystemError, UnicodeDecodeError) as error:
        raise UndecodableRecord(f"the name of a header is not UTF-8: {error.__cause__ or error}") from error
    # Most records have none, and to ask whether that is a Mapping takes longer than to read it.
    return list(found.items()) if found is not None and isinstance(found, Mapping) else found


def readable_headers(message: HasHeaders) -> Headers | None:
    """As `headers_of`, but None for headers that cannot be read: for those who only pass them on."""
    try:
        return headers_of(message)
    except UndecodableRecord:
        return None


def is_name(header: str) -> bool:
    """Whether the name of a header was UTF-8; it has surrogates if not (kafka/aiokafka_batches.py)."""
    return not any("\ud800" <= character <= "\udfff" for character in header)


def size_of(headers: Headers | None) -> int:
    """How many bytes of a record the headers take."""
    sizes = (len(name.encode(errors="replace")) + len(content or b"") for name, content in headers or ())
    return sum(OVERHEAD_BYTES + size for size in sizes)
