"""Other arguments for jobs that are put back: from a function, or from a JSON file.

::

    def mapping(job):  # id, task, queue, args, kwargs and exception, as a dict
        return job["args"], {**job["kwargs"], "width": 640}  # or None: leave this job out

A JSON file is an object with `kwargs`, which are added to those of each job, or `args`, which replace them.
"""

import json
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, Final

from joblog.projections.monitor.models import Job
from joblog.services.cli.values import from_here
from joblog.services.client.redriving import Arguments
from joblog.services.replay.redriving import JobMapping
from joblog.streams.errors import InvalidData

#: What a mapping says, in the order of a function's answer.
FIELDS: Final = ("args", "kwargs")


def mapping_of(place: str) -> JobMapping:
    """The mapping that an option names; InvalidData, with line and field, if it cannot be used."""
    if place.endswith(".json"):
        return _from_file(Path(place))
    function = _function(place)

    def mapped(job: Job, snapshot: dict[str, Any]) -> Arguments | None:
        args, kwargs = _arguments(snapshot)
        shown = {"id": job.id, "task": job.task, "queue": job.queue, "args": args, "kwargs": kwargs}
        error = None if job.exception is None else job.exception.model_dump(mode="json")
        try:
            answer = function({**shown, "exception": error})
        except Exception as exc:
            where = extract_tb(exc.__traceback__)[-1]
            what = f"{type(exc).__name__}: {exc} (line {where.lineno} of {where.filename})"
            raise InvalidData(f"--map {place} failed on job {job.id}: {what}") from exc
        return None if answer is None else _checked(answer, f"--map {place}, job {job.id}")

    return mapped


def _checked(answer: Any, what: str) -> Arguments:
    if not isinstance(answer, tuple | list) or len(answer) != len(FIELDS):
        raise InvalidData(f"{what}: {answer!r:.100} is not (args, kwargs), nor None")
    for name, value in zip(FIELDS, answer, strict=True):
        _check_field(name, value, what)
    args, kwargs = answer
    return list(args), dict(kwargs)


def _check_field(name: str, value: Any, what: str) -> None:
    if name == "args" and not isinstance(value, list | tuple):
        raise InvalidData(f"{what}: args is {value!r:.100}: give a list of positional arguments")
    if name == "kwargs" and not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
        raise InvalidData(f"{what}: kwargs is {value!r:.100}: give an object of named arguments")


def _from_file(path: Path) -> JobMapping:
    try:
        text = path.read_text()
    except OSError as exc:
        raise InvalidData(f"--map {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidData(f"--map {path} is not UTF-8 (byte {exc.start})") from exc
    said = _fields(path, text)

    def mapped(_job: Job, snapshot: dict[str, Any]) -> Arguments | None:
        args, kwargs = _arguments(snapshot)
        return said.get("args", args), {**kwargs, **said.get("kwargs", {})}

    return mapped


def _fields(path: Path, text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except json.JSONDecodeError as exc:
        raise InvalidData(f"--map {path}, line {exc.lineno}, column {exc.colno}: {exc.msg}") from exc
    except RecursionError as exc:
        raise InvalidData(f"--map {path} is nested too deeply") from exc
    if not isinstance(said, dict) or not said:
        raise InvalidData(
            f'--map {path}: write an object with args or kwargs, such as {{"kwargs": {{"width": 640}}}}'
        )
    for name, value in said.items():
        what = f"--map {path}, line {_line_of(name, text)}"
        if name not in FIELDS:
            raise InvalidData(f"{what}: there is no field {name!r:.100}: write {' or '.join(FIELDS)}")
        _check_field(name, value, what)
    return said


def _line_of(name: str, text: str) -> int:
    """The line in which a field of the outermost object is written, the first one if it is there twice."""
    place = text.find(json.dumps(name))
    return text.count("\n", 0, max(place, 0)) + 1


def _arguments(snapshot: dict[str, Any]) -> Arguments:
    return snapshot["spec"].get("args", []), snapshot["spec"].get("kwargs", {})


def _from_path(path: str) -> ModuleType:
    spec = spec_from_file_location("joblog_mapping", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def _function(place: str) -> Callable[[dict[str, Any]], Any]:
    module, _, name = place.rpartition(":")
    try:
        if module.endswith(".py"):
            made = _from_path(module)
        else:
            from_here()
            made = import_module(module)
        found: Callable[[dict[str, Any]], Any] = getattr(made, name)
    except Exception as exc:
        raise InvalidData(
            f"--map {place} cannot be used ({type(exc).__name__}: {exc}): give MODULE:FUNCTION, FILE.py:FUNCTION or "
            "a JSON file"
        ) from exc
    return found
