"""`joblog config show`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import typer
from joblog.services.cli.context import Output, OutputOption
from joblog.services.cli.output import print_rows
from joblog.services.cli.values import settings_of
from joblog.services.settings.errors import variable
from joblog.services.settings.model import Settings
from joblog.services.settings.sources import origins
from pydantic import BaseModel, SecretStr

app = typer.Typer(no_args_is_help=True)

HIDDEN: Final = "(hidden)"
#: What is shown to people for a setting that is empty.
EMPTY: Final = {"worker.queues": "(those of the tasks)"}
#: Properties of librdkafka that hold secrets; the URL of a token endpoint is none.
_SECRET: Final = re.compile(r"secret|password|passphrase|key\.pem|token(?!\.endpoint\.url$)")


@app.callback()
def config() -> None:
    """Show the settings."""


@app.command()
def show(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show every setting with its environment variable, source and value; secrets are hidden.

    In a TOML file, JOBLOG_WORKER__SLOTS is worker.slots. A worker without queues serves the queues of its tasks.

    Example: joblog config show --output json
    """
    settings = settings_of(ctx)
    sources = origins(Settings, settings.config, settings.directory)
    rows = [
        {
            "setting": ".".join(path),
            "value": _shown(value),
            "origin": _origin(".".join(path), sources),
            "variable": variable(path),
        }
        for path, value in _values(settings)
    ]
    if output is Output.TABLE:
        rows = [{**row, "value": row["value"] or EMPTY.get(row["setting"], row["value"])} for row in rows]
    print_rows(rows, ("variable", "origin", "value"), output)


def _values(model: BaseModel, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in type(model).model_fields:
        path, value = (*prefix, name), getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _values(value, path)
        else:
            yield path, value


def _shown(value: Any) -> Any:
    """A value with its secrets hidden: those of our own settings, and properties with a name like a secret's."""
    match value:
        case SecretStr():
            return HIDDEN
        case Mapping():
            return {name: HIDDEN if _SECRET.search(name.lower()) else one for name, one in value.items()}
        case _:
            return value


def _origin(name: str, sources: dict[str, str]) -> str:
    """The source of a setting. A secret may come from the file that `x_file` names, a mapping in parts."""
    for known, label in sources.items():
        if known in {name, f"{name}_file"} or known.startswith(f"{name}."):
            return label
    return "default"
