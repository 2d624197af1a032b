"""Files that are generated from the code and kept in deploy/: compared with what is there, or written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class GeneratedFiles(NamedTuple):
    """The files of one generator.

    - patterns: which files below the directory are its own, as globs.
    - origin: what the files are made from, for messages.
    """

    patterns: Sequence[str]
    origin: str

    def drifted(self, directory: Path, expected: Mapping[str, str]) -> list[str]:
        """The files in `directory` that are missing, different or left over, each with which of these it is."""
        said = [f"{name}: left over" for name in self._found(directory) - expected.keys()]
        for name, text in expected.items():
            path = directory / name
            if not path.exists():
                said.append(f"{name}: missing")
            elif path.read_text() != text:
                said.append(f"{name}: differs from the {self.origin}")
        return sorted(said)

    def write(self, directory: Path, expected: Mapping[str, str]) -> None:
        """Write all files, and remove those that are no longer made."""
        for name in self._found(directory) - expected.keys():
            (directory / name).unlink()
        for name, text in expected.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _found(self, directory: Path) -> set[str]:
        files = (path for pattern in self.patterns for path in directory.glob(pattern))
        return {str(path.relative_to(directory)) for path in files if path.is_file()}
