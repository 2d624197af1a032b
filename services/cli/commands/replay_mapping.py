"""Other arguments for jobs that are put back: from a function, or from a JSON file.

::

    def mapping(job):  # id, task, queue, args, kwargs and exception, as a dict
        return job["args"], {**job["kwargs"], "width": 640}  # or None: leave this job out

A JSON file is an object with `kwargs`, which are added to those of each job, or `args`, which replace them.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from joblog.projections.monitor.models import Job
from joblog.services.cli.values import from_here, parse_json
from joblog.services.client.redriving import Arguments
from joblog.streams.errors import InvalidData

#: From a job and its snapshot to its new arguments, or None.
JobMapping = Callable[[Job, dict[str, Any]], Arguments | None]


def mapping_of(place: str) -> JobMapping:
    """The mapping that an option names; InvalidData if it cannot be used."""
    if place.endswith(".json"):
        return _from_file(Path(place))
    function = _function(place)

    def mapped(job: Job, snapshot: dict[str, Any]) -> Arguments | None:
        args, kwargs = _arguments(snapshot)
        shown = {"id": job.id, "task": job.task, "queue": job.queue, "args": args, "kwargs": kwargs}
        error = None if job.exception is None else job.exception.model_dump(mode="json")
        try:
            answer = function({**shown, "exception": error})
            if answer is None:
                return None
            new_args, new_kwargs = answer
        except Exception as exc:
            raise InvalidData(f"--map {place} failed on job {job.id}: {type(exc).__name__}: {exc}") from exc
        return list(new_args), dict(new_kwargs)

    return mapped


def _from_file(path: Path) -> JobMapping:
    try:
        said = parse_json(path.read_text(), f"--map {path}")
    except OSError as exc:
        raise InvalidData(f"--map {path} cannot be read: {exc.strerror}") from exc
    if not isinstance(said, dict) or not said or said.keys() - {"args", "kwargs"}:
        raise InvalidData(
            f'--map {path}: write an object with args or kwargs, such as {{"kwargs": {{"width": 640}}}}'
        )

    def mapped(_job: Job, snapshot: dict[str, Any]) -> Arguments | None:
        args, kwargs = _arguments(snapshot)
        return said.get("args", args), {**kwargs, **said.get("kwargs", {})}

    return mapped


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
