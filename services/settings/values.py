"""Values of settings that are texts where they come from: lists, tables, names of modules and queues."""

import json
import re
from typing import Annotated, Any

from joblog.streams.contract.fields import QUEUE_PATTERN
from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode


def _listed(given: Any) -> Any:
    return [one.strip() for one in given.split(",") if one.strip()] if isinstance(given, str) else given


def mapped(given: Any) -> Any:
    """A JSON object, or the text of one, as an environment variable holds it."""
    if not isinstance(given, str):
        return given
    try:
        found = json.loads(given)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    raise ValueError('write a JSON object: {"name": value}')


def _module(name: str) -> str:
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        meant = ".".join(part for part in name.removesuffix(".py").split("/") if part.isidentifier())
        raise ValueError(f"{name!r} is no name of a module: give a module name: {meant or 'myapp.tasks'}")
    return name


def _queue(name: str) -> str:
    if not re.fullmatch(QUEUE_PATTERN, name):
        raise ValueError(f"{name!r} is no name of a queue: it must match {QUEUE_PATTERN}")
    return name


#: Lists, or text with commas, as an environment variable holds it.
Modules = Annotated[tuple[Annotated[str, AfterValidator(_module)], ...], NoDecode, BeforeValidator(_listed)]
Queues = Annotated[tuple[Annotated[str, AfterValidator(_queue)], ...], NoDecode, BeforeValidator(_listed)]
