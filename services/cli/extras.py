"""Packages that only some commands need, each with the extra of `pip install 'joblog[extra]'` that brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from joblog.streams.errors import JoblogError


@contextmanager
def needs(command: str, extra: str) -> Iterator[None]:
    """Turn a missing package into a JoblogError that names the extra; modules of Joblog itself are no packages."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if not extra or (exc.name or "").startswith("joblog"):
            raise
        raise JoblogError(f"`joblog {command}` needs the package {exc.name}: {installing(extra)}") from exc


def installing(extra: str) -> str:
    """The command that installs what an extra brings."""
    return f"pip install 'joblog[{extra}]'"
