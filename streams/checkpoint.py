"""How far a long replay is, in one file of its directory, so that one that was stopped or killed can go on there."""

import os
from pathlib import Path
from typing import Final, Generic, TypeVar

from joblog.streams.errors import InvalidData
from msgspec import MsgspecError, msgpack

T = TypeVar("T")

_VERSION: Final = b"joblog checkpoint 1\n"


class Checkpoint(Generic[T]):
    """The file `NAME.checkpoint` of a directory, which holds one value or is not there."""

    def __init__(self, directory: Path, name: str, kind: type[T]) -> None:
        self._path = directory / f"{name}.checkpoint"
        self._encode = msgpack.Encoder().encode
        self._decode = msgpack.Decoder(kind).decode

    def read(self) -> T | None:
        """The value that was written last; InvalidData if it is that of another version."""
        if not self._path.exists():
            return None
        data = self._path.read_bytes()
        try:
            if not data.startswith(_VERSION):
                raise InvalidData(f"{self._path} was written by another Joblog: give another directory")
            return self._decode(memoryview(data)[len(_VERSION) :])
        except MsgspecError as error:
            raise InvalidData(f"{self._path} cannot be read ({error}): give another directory") from error

    def write(self, value: T) -> None:
        """Replace the value, at once: a kill or a power cut leaves the former one or this one."""
        unfinished = self._path.with_suffix(".part")
        with unfinished.open("wb") as file:
            file.write(_VERSION)
            file.write(self._encode(value))
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self._path)

    def remove(self) -> None:
        """Remove the file, and what a kill left of a new one."""
        self._path.unlink(missing_ok=True)
        self._path.with_suffix(".part").unlink(missing_ok=True)
