"""The doctor: looks at everything an installation needs, and says how to mend what is wrong."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from joblog.services.settings.model import Settings


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """What one check found; `fix` tells what to do about it."""

    level: Level
    check: str
    finding: str
    fix: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings, checks: Sequence[tuple[str, Check]]) -> Iterator[Finding]:
    """What all checks find, each as soon as it is known. A check that breaks off is a finding, too."""
    for name, check in checks:
        try:
            yield from check(settings)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with the system, the other checks still count
            told = str(exc).strip() or repr(exc)
            yield fail(
                name, f"{type(exc).__name__}: {told.splitlines()[0]}", "`joblog config show` tells what is used"
            )


def ok(check: str, finding: str) -> Finding:
    return Finding(Level.OK, check, finding)


def warn(check: str, finding: str, fix: str) -> Finding:
    return Finding(Level.WARN, check, finding, fix)


def fail(check: str, finding: str, fix: str) -> Finding:
    return Finding(Level.FAIL, check, finding, fix)
