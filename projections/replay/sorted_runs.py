"""A sort that is larger than memory: values are written to files in sorted runs, and read back merged, in order.

Each run is complete when its name is there, so whoever was stopped goes on behind the last run.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from msgspec import msgpack

V = TypeVar("V")

#: A run is read so many bytes at a time; all runs are read at once.
_READ_BYTES: Final = 262_144
_LENGTH_BYTES: Final = 4
#: So many values are collected in memory before they become a run.
COLLECTED_MAX: Final = 100_000
_by_key: Final[Callable[[tuple[bytes, int, Any]], tuple[bytes, int]]] = itemgetter(0, 1)


class SortedRuns(Generic[V]):
    """Runs of values with a key of bytes each, in files of one directory; `name` is what the files' names begin with.

    Values of the same key come back in the order in which their runs were written.
    """

    def __init__(self, directory: Path, name: str, kind: type[V]) -> None:
        self._directory, self._name = directory, name
        self._encode = msgpack.Encoder().encode
        self._decode = msgpack.Decoder(kind).decode
        self.count = 0

    def write(self, items: Iterable[tuple[bytes, V]]) -> None:
        """Write one run; it holds each key once."""
        path = self._path(self.count)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            for key, value in sorted(items, key=itemgetter(0)):
                data = self._encode(value)
                file.write(bytes((len(key),)) + key + len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        unfinished.rename(path)
        self.count += 1

    def merged(self) -> Iterator[tuple[bytes, list[V]]]:
        """Every key, in order, with its values in the order of their runs."""
        current, values = b"", list[V]()
        for key, _, data in heapq.merge(*map(self._read, range(self.count)), key=_by_key):
            if key != current and values:
                yield current, values
                values = []
            current = key
            values.append(self._decode(data))
        if values:
            yield current, values

    def remove(self) -> None:
        """Remove all files, also one that was not complete."""
        for path in self._directory.glob(f"{self._name}-*"):
            if path.suffix in {".run", ".part"}:
                path.unlink()
        self.count = 0

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._name}-{number:06}.run"

    def _read(self, number: int) -> Iterator[tuple[bytes, int, bytes]]:
        with self._path(number).open("rb", buffering=_READ_BYTES) as file:
            while first := file.read(1):
                key = file.read(first[0])
                length = int.from_bytes(file.read(_LENGTH_BYTES), "big")
                yield key, number, file.read(length)


class Collected(Generic[V]):
    """Values that come in any order, several with the same key: in memory, and in runs when they are many."""

    def __init__(self, runs: SortedRuns[list[V]]) -> None:
        self.runs = runs
        self._values: dict[bytes, list[V]] = defaultdict(list)
        #: How many are in memory.
        self.waiting = 0

    def add(self, key: bytes, value: V) -> None:
        """Add one value."""
        self._values[key].append(value)
        self.waiting += 1

    @property
    def is_empty(self) -> bool:
        return not self.waiting and not self.runs.count

    def spill(self) -> None:
        """Write what is in memory if that is much."""
        if self.waiting >= COLLECTED_MAX:
            self.write()

    def write(self) -> None:
        """Write what is in memory."""
        if self._values:
            self.runs.write(self._values.items())
        self._values.clear()
        self.waiting = 0

    def merged(self) -> Iterator[tuple[bytes, list[V]]]:
        """All values by key, in the order of keys; those of one key as they came."""
        self.write()
        return ((key, [one for run in runs for one in run]) for key, runs in self.runs.merged())
