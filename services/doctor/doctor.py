"""Findings: what a check of the installation found, how bad it is, and how to fix it."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from joblog.services.settings.model import Settings


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """What one check found; `fix` is what to do about it, empty if nothing."""

    level: Level
    check: str
    finding: str
    fix: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings, checks: Sequence[tuple[str, Check]]) -> Iterator[Finding]:
    """The findings of all checks, as they come. A check that raises is a finding, too, and the others go on."""
    for name, check in checks:
        try:
            yield from check(settings)
        except Exception as exc:  # noqa: BLE001 - it becomes a finding
            text = str(exc).strip() or repr(exc)
            yield fail(
                name,
                f"{type(exc).__name__}: {text.splitlines()[0]}",
                "`joblog config show` prints the settings in use",
            )


def ok(check: str, finding: str) -> Finding:
    return Finding(Level.OK, check, finding)


def warn(check: str, finding: str, fix: str) -> Finding:
    return Finding(Level.WARN, check, finding, fix)


def fail(check: str, finding: str, fix: str) -> Finding:
    return Finding(Level.FAIL, check, finding, fix)
