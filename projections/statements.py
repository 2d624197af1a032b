"""Reads packaged .sql files: statements under `-- name:` lines, each with one sentence about it.

A line `-- include: NAME` stands for the statement, or part of one, of that name further up in the file.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final, LiteralString

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_INCLUDE: Final = re.compile(r"^ *-- include: (\w+)$", re.MULTILINE)


def load(file: str) -> Mapping[str, LiteralString]:
    """The statements of a file beside this one, by name. They are Joblog's own text, nothing is put in."""
    return parsed(files("joblog.projections").joinpath(file).read_text(encoding="utf-8"))


def parsed(text: str) -> Mapping[str, LiteralString]:
    """The statements of such a file, which must be text that was not made at run time."""
    parts = _NAME.split(text)[1:]
    statements: dict[str, LiteralString] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        statements[name] = _INCLUDE.sub(lambda match: statements[match[1]], body.strip())
    return statements
