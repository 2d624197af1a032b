"""The directories of the detection service: uploads, results, and scratch directories that are removed."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

import skimage.data

#: The share of a file that arrives when its upload is cut off.
TRUNCATED_SHARE: Final = 0.6
#: The suffix of a file while it arrives.
ARRIVING: Final = ".part"


@dataclass(frozen=True, slots=True)
class Workspace:
    """One directory that producer and workers share."""

    root: Path

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def album(self) -> Path:
        """One picture with all photographs, side by side."""
        return self.results / "album.png"

    @property
    def stopped(self) -> Path:
        """Where the run that is cancelled writes when it stopped, in seconds since 1970."""
        return self.root / "panorama.stopped"

    def scratch(self, run_id: str) -> Path:
        """The directory for temporary files of a run."""
        return self.root / "scratch" / run_id

    def create(self) -> None:
        for directory in (self.uploads, self.results, self.root / "scratch"):
            directory.mkdir(parents=True, exist_ok=True)

    def upload_path(self, run_id: str, photograph: str) -> Path:
        """The path to which the photograph of a run is uploaded."""
        return self.uploads / f"{run_id}{Path(photograph).suffix}"


def content_of(photograph: str) -> bytes:
    """One of scikit-image's photographs, as a file."""
    with as_file(files(skimage.data).joinpath(photograph)) as source:
        return source.read_bytes()


def upload(photograph: str, target: Path, *, share: float = 1.0) -> None:
    """Put one of scikit-image's photographs, or its first `share`, at `target`, atomically."""
    content = content_of(photograph)
    arriving = target.with_suffix(ARRIVING)
    arriving.write_bytes(content[: int(len(content) * share)])
    arriving.rename(target)


def remove_scratch(scratch: Path) -> tuple[int, int]:
    """Remove a scratch directory; returns how many files and bytes it had, 0 if there is none."""
    sizes = list(_sizes(scratch))
    if scratch.exists():
        shutil.rmtree(scratch)
    return len(sizes), sum(sizes)


def _sizes(directory: Path) -> Iterator[int]:
    return (path.stat().st_size for path in directory.rglob("*") if path.is_file())
