"""A copy of the working tree that runs its own code, with the packages of the environment."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from tests.mutants.mutant import Mutant
from tests.support.electors import OtherSituation

PACKAGES = ("streams", "projections", "services")
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".ns", ".joblog", ".*_cache", "build", "__pycache__", ".hypothesis"
)
#: A test that hangs without its defence has failed; the longest of them takes 60 s.
TEST_TIMEOUT_S = 150
#: Of the line that says why a test failed.
MESSAGE_MAX = 120
FAILED, PASSED = 1, 0  # exit codes of pytest; others mean that the tests could not be run

IMPORTED = """
import joblog.projections, joblog.services, joblog.streams
print(*(module.__file__ for module in (joblog.projections, joblog.services, joblog.streams)))
"""


class Outcome(NamedTuple):
    """How the tests ended.

    - failed: the first test that failed, if one did. message: the first line of why.
    - broken: what pytest printed, if the tests could not be run.
    """

    failed: str | None
    message: str
    broken: str | None
    seconds: float


class Workspace:
    """The copy. Used by one mutant at a time."""

    def __init__(self, source: Path, directory: Path, environment: Mapping[str, str]) -> None:
        self._root = directory / "joblog"
        self._report = directory / "report.xml"
        shutil.copytree(source, self._root, ignore=NOT_COPIED)
        # The package is installed in editable mode: its import hook leads to `source`. It is asked last, so what
        # PYTHONPATH finds comes first; the links make one package of the three directories (pyproject.toml).
        links = self._root / ".ns" / "joblog"
        links.mkdir(parents=True)
        for package in PACKAGES:
            (links / package).symlink_to(Path("../..", package), target_is_directory=True)
        self._environment = {
            **os.environ,
            **environment,
            "PYTHONPATH": str(self._root / ".ns"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        # By the files' contents: two versions of a file may be written within a second, and be of one size.
        compiling = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", *PACKAGES]
        subprocess.run(compiling, cwd=self._root, check=True)
        self._check_imports()

    def _check_imports(self) -> None:
        """Make sure that what is tested is what is mutated."""
        asked = subprocess.run(
            [sys.executable, "-c", IMPORTED], cwd=self._root, env=self._environment, check=True, capture_output=True
        )
        for file in asked.stdout.decode().split():
            if not Path(file).is_relative_to(self._root):
                raise RuntimeError(f"the copy in {self._root} imports {file}, which is not its own")

    @contextmanager
    def without(self, mutant: Mutant) -> Iterator[None]:
        """The copy without a defence, until the end of the block."""
        originals = {path: (self._root / path).read_bytes() for path in mutant.texts(self._root)}
        try:
            for path, text in mutant.texts(self._root).items():
                (self._root / path).write_text(text)
            yield
        finally:
            for path, content in originals.items():
                (self._root / path).write_bytes(content)

    def run(self, tests: Sequence[str], *options: str) -> Outcome:
        """Run tests until one fails."""
        began = time.monotonic()
        self._report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
        command += [f"--timeout={TEST_TIMEOUT_S}", f"--junitxml={self._report}", *options, *tests]
        run = subprocess.run(command, cwd=self._root, env=self._environment, capture_output=True, check=False)
        seconds = time.monotonic() - began
        failed, message = _failed(self._report) if run.returncode == FAILED else (None, "")
        if OtherSituation.__name__ in message:
            failed = None
        broken = None if failed or run.returncode == PASSED else (run.stdout + run.stderr).decode(errors="replace")
        return Outcome(failed, message, broken, seconds)


def _failed(report: Path) -> tuple[str | None, str]:
    """The test that failed, and why. An error outside of a test, as in a fixture, is none: a server may be away."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # written by pytest a moment ago
        failure = case.find("failure")
        if failure is not None:
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            return name, failure.get("message", "").partition("\n")[0][:MESSAGE_MAX]
    return None, ""
