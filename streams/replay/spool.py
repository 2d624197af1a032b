"""Values in a file: appended, read back in their order, or one by its place; who goes on cuts it to a length."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_LENGTH_BYTES: Final = 4


class Spool:
    """A file of byte strings. `size` is where the next one comes."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self._path = path
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(size)
        self._file.seek(size)
        self.size = size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, data: bytes) -> None:
        """Write one behind the others; `flush` makes it last."""
        self._file.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
        self._file.write(data)
        self.size += _LENGTH_BYTES + len(data)

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def read(self) -> Iterator[tuple[int, bytes]]:
        """All of them, each with its place."""
        self._file.flush()
        with self._path.open("rb") as file:
            place = 0
            while head := file.read(_LENGTH_BYTES):
                data = file.read(int.from_bytes(head, "big"))
                yield place, data
                place += _LENGTH_BYTES + len(data)

    def at(self, place: int) -> bytes:
        """The one at this place."""
        self._file.flush()
        self._file.seek(place)
        data = self._file.read(int.from_bytes(self._file.read(_LENGTH_BYTES), "big"))
        self._file.seek(self.size)
        return data

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
