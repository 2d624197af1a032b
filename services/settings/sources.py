"""Sources of settings: a TOML file, the addresses that `joblog up` leaves, and files that hold one secret."""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from joblog.streams.errors import SettingsError
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
)

DEFAULT_FILE: Final = Path("joblog.toml")
DEFAULT_DIRECTORY: Final = Path(".joblog")
ADDRESSES_FILE: Final = "addresses.json"
#: What `config show` calls that file.
UP: Final = "addresses of joblog up"
_SECRET_BYTES_MAX: Final = 65_536


class SecretFiles(BaseModel):
    """A group of settings in which `x_file` may name the file that holds `x`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        files = {name: given[name] for name in cls.model_fields if name.endswith("_file") and given.get(name)}
        return {**given, **{name.removesuffix("_file"): _secret(name, path, given) for name, path in files.items()}}


def _secret(name: str, path: str, given: Mapping[str, Any]) -> str:
    if given.get(name.removesuffix("_file")) is not None:
        raise ValueError(f"both {name.removesuffix('_file')} and {name} are set: give one of them")
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(_SECRET_BYTES_MAX).strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"{name} cannot be read: {exc}") from exc


class Yielding(PydanticBaseSettingsSource):
    """A source that leaves out `x_file` where one of higher precedence has `x`, and `x` where that has `x_file`."""

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        self._source._set_current_state(self.current_state)
        return {group: self._left(values, self.current_state.get(group)) for group, values in self._source().items()}

    def _left(self, values: Any, stronger: Any) -> Any:
        if not (isinstance(values, dict) and isinstance(stronger, dict)):
            return values
        return {name: value for name, value in values.items() if stronger.get(_twin(name)) in (None, "")}


def _twin(name: str) -> str:
    """The other way to give a secret: in a file, or as it is."""
    return name.removesuffix("_file") if name.endswith("_file") else f"{name}_file"


class TomlSource(PydanticBaseSettingsSource):
    """The file that `config` names, or `joblog.toml` if there is one."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        named = self.current_state.get("config")
        path = Path(named) if named else DEFAULT_FILE
        if not named and not path.exists():
            return {}
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise SettingsError(f"the file {path} (--config, JOBLOG_CONFIG) cannot be read: {exc.strerror}") from exc
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise SettingsError(f"{path} is not TOML: {exc}") from exc
        if "config" in found:
            raise SettingsError(
                f"{path}: config has no effect in a file; name the file with --config or JOBLOG_CONFIG instead"
            )
        return found


class AddressesSource(PydanticBaseSettingsSource):
    """The addresses of the stack in this directory; the source of lowest precedence."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        path = Path(self.current_state.get("directory") or DEFAULT_DIRECTORY) / ADDRESSES_FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            raise SettingsError(f"{path}, written by `joblog up`, cannot be read: {exc}; delete it") from exc
        if not isinstance(found, dict):
            raise SettingsError(f"{path}, written by `joblog up`, is not a JSON object; delete it")
        return found


def write_addresses(directory: Path, addresses: Mapping[str, Any]) -> Path:
    """Leave the addresses of a stack for the other commands of this machine; they hold a password."""
    path = directory / ADDRESSES_FILE
    text = json.dumps(addresses, indent=2) + "\n"
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
    return path


def origins(settings: type[BaseSettings], config: Path | None, directory: Path) -> dict[str, str]:
    """Where each setting that is not at its default comes from: its dotted name, and the source."""
    toml, addresses = TomlSource(settings), AddressesSource(settings)
    toml._set_current_state({"config": config})
    addresses._set_current_state({"directory": directory})
    sources = {
        UP: addresses(),
        str(config or DEFAULT_FILE): toml(),
        ".env": DotEnvSettingsSource(settings)(),
        "environment": EnvSettingsSource(settings)(),
    }
    known: dict[str, str] = {}
    for label, found in sources.items():
        for name in _flat(found):
            known.pop(_twin(name), None)
            known[name] = label
    return known


def _flat(found: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, value in found.items():
        names += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return names
