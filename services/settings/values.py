"""Types of settings that need more than pydantic's own: lists and tables written as text, names, paths."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from joblog.streams.contract.fields import is_queue, wrong_queue
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode


def _listed(given: Any) -> Any:
    return [one.strip() for one in given.split(",") if one.strip()] if isinstance(given, str) else given


LONGEST_S: Final = 10 * 365 * 86_400
_UNITS_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def duration_s(text: str) -> float | None:
    """The seconds of `90`, `90s`, `15m`, `1.5h`, `2d`; None for another text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", text.strip())
    return None if found is None else float(found[1]) * _UNITS_S[found[2] or "s"]


def _lasting(text: str) -> str:
    seconds = duration_s(text)
    if seconds is None or not 1 <= seconds <= LONGEST_S:
        raise ValueError(f"{text!r:.30} is not a time to keep something for: write 12h or 30d, ten years at most")
    return text


def lasting_ms(text: str) -> int:
    """The milliseconds of a text that is a `Lasting`."""
    seconds = duration_s(text)
    assert seconds is not None
    return round(seconds * 1000)


def mapped(given: Any) -> Any:
    """A mapping, or the text of a JSON object, as an environment variable holds it."""
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
        parts = [part for part in re.split(r"[./]", name.removesuffix(".py")) if part]
        meant = ".".join(parts) if parts and all(part.isidentifier() for part in parts) else "a name like myapp.tasks"
        raise ValueError(f"{name!r} is not a module name: write {meant}")
    return name


def _queue(name: str) -> str:
    if not is_queue(name):
        raise ValueError(wrong_queue(name))
    return name


def _distinct(what: str) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{what} {name} is listed twice: list it once")
        return names

    return check


def _filled(given: Any) -> Any:
    if given in ("", Path()):
        raise ValueError("it is empty: leave it out instead")
    return given


def _filled_secret(given: SecretStr) -> SecretStr:
    _filled(given.get_secret_value())
    return given


#: A time such as 12h or 30d, a second to ten years.
Lasting = Annotated[str, AfterValidator(_lasting)]
QueueName = Annotated[str, AfterValidator(_queue)]
ModuleName = Annotated[str, AfterValidator(_module)]
#: A path; an empty text would mean the current directory.
FilledPath = Annotated[Path, BeforeValidator(_filled)]
Secret = Annotated[SecretStr, AfterValidator(_filled_secret)]
#: Lists, or text with commas between the names, as an environment variable holds it.
Modules = Annotated[tuple[ModuleName, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_distinct("module"))]
Queues = Annotated[tuple[QueueName, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_distinct("queue"))]
