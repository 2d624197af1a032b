"""What a mutant is: Joblog without one of its defences, and the tests that must notice."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Patch(NamedTuple):
    """One replacement in one file, named from the root of the working tree."""

    file: str
    old: str
    new: str

    def applied_to(self, text: str) -> str:
        """The file's text without the defence; raises StalePatch unless `old` is there exactly once."""
        found = text.count(self.old)
        if found != 1:
            raise StalePatch(f"{self.file}: expected once, found {found} times: {self.old!r}")
        return text.replace(self.old, self.new)


class Mutant(NamedTuple):
    """A defence taken out.

    - name: for `--only`. without: what is missing, in a few words.
    - tests: node ids of pytest, of which at least one must fail.
    """

    name: str
    without: str
    patches: tuple[Patch, ...]
    tests: tuple[str, ...]

    def texts(self, root: Path) -> dict[Path, str]:
        """The mutated files, by their path from the root. Raises StalePatch."""
        texts: dict[Path, str] = {}
        for patch in self.patches:
            path = Path(patch.file)
            if path not in texts and not (root / path).is_file():
                raise StalePatch(f"{self.name}: there is no file {path}")
            try:
                texts[path] = patch.applied_to(texts.get(path) or (root / path).read_text())
            except StalePatch as error:
                raise StalePatch(f"{self.name}: {error}") from None
        return texts


class StalePatch(Exception):
    """The code has changed, and a patch does not fit it any more: anchor the mutant anew."""


def mutant(name: str, without: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    """A mutant of one replacement."""
    return Mutant(name, without, (Patch(file, old, new),), tests)


def stale(mutants: Iterable[Mutant], root: Path) -> list[str]:
    """Why mutants do not fit the code, one line for each that does not."""
    reasons = []
    for one in mutants:
        try:
            one.texts(root)
        except StalePatch as error:
            reasons.append(str(error))
    return reasons
