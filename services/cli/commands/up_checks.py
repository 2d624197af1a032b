"""What `joblog up` looks at before anything starts: settings without effect, what is missing to run a role."""

from importlib.util import find_spec
from typing import Final

from joblog.services.cli.context import note
from joblog.services.cli.extras import installing
from joblog.services.cli.values import from_here
from joblog.services.embedded.ports import HOST
from joblog.services.settings.model import Settings
from joblog.services.settings.sources import UP, origins
from joblog.streams.errors import SettingsError

#: Settings of servers and roles that are not started by `joblog up`.
_IDLE: Final = frozenset(
    {
        "kafka.bootstrap_servers",
        "kafka.security_protocol",
        "postgres.dsn",
        "postgres.dsn_file",
        "replication",
        "http.port",
        "elector.id",
    }
)
#: Where a role may listen so that it can be probed on this machine.
ASKED_HOSTS: Final = frozenset({HOST, "localhost", "0.0.0.0"})  # noqa: S104 - the user's choice


def refuse_idle(settings: Settings) -> None:
    """SettingsError for settings that would have no effect here, though other commands would follow them."""
    sources = origins(Settings, settings.config, settings.directory)
    idle = [f"{name} ({label})" for name, label in sources.items() if label != UP and _is_idle(name, settings)]
    if idle:
        raise SettingsError(
            "`joblog up` starts its own Kafka, Postgres and roles, so these settings have no effect on it: "
            f"{', '.join(idle)}. Unset them here, or name a settings file without them with --config"
        )


def _is_idle(name: str, settings: Settings) -> bool:
    match name:
        case "http.enabled":
            return not settings.http.enabled
        case "http.host":
            return settings.http.host not in ASKED_HOSTS
        case _:
            return name in _IDLE or name.startswith(("kafka.sasl_", "kafka.ssl_"))


def can_recur() -> bool:
    """Whether the recurring process can run; says what is missing if not."""
    if find_spec("faust") is not None:
        return True
    note(f"recurring jobs wait: what creates them needs the package faust: {installing('faust')}, or --no-recurring")
    return False


def look_for(module: str, what: str) -> None:
    """SettingsError if there is no such module, before anything starts: its role would end with the same error."""
    from_here()
    try:
        found = find_spec(module)
    except ImportError as exc:
        raise SettingsError(f"the {what} of {module} cannot be imported: {exc}") from exc
    if found is None:
        raise SettingsError(f"the {what} of {module} cannot be imported: no module has this name, here or installed")
