"""Reads packaged .sql files: statements under `-- name:` lines, each with one sentence about it."""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load(file: str) -> Mapping[str, LiteralString]:
    """The statements of a file beside this one, by name. They are Joblog's own text, never put together."""
    text = files("joblog.projections").joinpath(file).read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return {name: cast("LiteralString", body.strip()) for name, body in zip(parts[::2], parts[1::2], strict=True)}
