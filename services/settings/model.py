"""Settings: everything that can be set, in one frozen model that is read once, when a process starts.

In order of decreasing precedence: environment (`JOBLOG_KAFKA__BOOTSTRAP_SERVERS`), `.env`, a TOML file
(`JOBLOG_CONFIG`, or `joblog.toml` where the process runs), and the addresses that `joblog up` leaves in its
directory. A secret may be in a file of its own: `JOBLOG_POSTGRES__DSN_FILE`. Times are in seconds. A setting has the
same name in the code, in a file and, in upper case, in the environment; an empty variable counts as not set.
"""

import os
import socket
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic_settings
from joblog.services.settings.errors import explain, unread
from joblog.services.settings.expiry import ExpirySettings
from joblog.services.settings.kafka import KafkaSettings
from joblog.services.settings.roles import (
    ClientSettings,
    ElectorSettings,
    HookSettings,
    OutboxSettings,
    RecurringSettings,
    TriggerSettings,
    WorkerSettings,
)
from joblog.services.settings.sources import AddressesSource, SecretFiles, TomlSource, Yielding
from joblog.services.settings.values import FilledPath, QueueName, Secret, mapped
from joblog.streams.contract.ids import LANES_MAX
from joblog.streams.contract.shards import served_shards
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import SettingsError
from joblog.streams.metrics import QUEUES_MAX, TASKS_MAX
from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict


class PostgresSettings(SecretFiles):
    """The read model; needed by the projector and by commands that show jobs.

    - dsn: `postgresql://user:password@host:port/database`.
    - schema_name: the schema that holds the tables; a second one can be built from the log beside it.
    - prepare: create or migrate the tables when a projector starts.
    """

    dsn: Secret | None = None
    dsn_file: FilledPath | None = None
    schema_name: str = Field("joblog", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    prepare: bool = True


class HttpSettings(SecretFiles):
    """Where a role serves /livez, /readyz, /metrics and /version; port 0 is any free one."""

    enabled: bool = True
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(0, ge=0, le=65_535)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        idle = sorted(self.model_fields_set - {"enabled"})
        if not self.enabled and idle:
            raise ValueError(
                f"http.{idle[0]} has no effect: http.enabled is false: leave {idle[0]} out, or set enabled to true"
            )
        return self


class TracingSettings(SecretFiles):
    """OpenTelemetry traces, which need the extra `otel`.

    - enabled: whether clients made from these settings, electors and workers trace jobs; electors and workers export
      by OTLP over HTTP to where OpenTelemetry's own variables say, such as OTEL_EXPORTER_OTLP_ENDPOINT.
    """

    enabled: bool = False


class MetricsSettings(SecretFiles):
    """How many names a process tells apart in the labels of its metrics; the rest is counted under `other`."""

    queues_max: int = Field(QUEUES_MAX, ge=1, le=10_000)
    tasks_max: int = Field(TASKS_MAX, ge=1, le=10_000)


class LogSettings(SecretFiles):
    """Logs on stderr; `auto` is readable text on a terminal and JSON elsewhere."""

    format: Literal["auto", "console", "json"] = "auto"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(BaseSettings):
    """All settings; make it with `Settings.load`, which explains what is wrong by the variable's name.

    - config: the TOML file.
    - directory: where `joblog up` keeps its data and addresses.
    - topic_prefix: what all topic names of the installation begin with.
    - lanes: partitions of the topics; fixed for the life of the installation.
    - replication: replicas of each topic, when it is created.
    - queue_shards: over how many neighbouring lanes each queue is spread that shall have more than one.
    - queue_shards_before: over how many lanes each of these queues was spread before its number was changed.

    While all is running, `joblog queue configure` spreads new jobs without keys over more or fewer lanes; jobs are
    run in whatever lane they are. `queue_shards` says where the keys of a queue are decided (idempotency and unique
    keys, the jobs of recurring definitions and triggers): to spread these, too, restart electors first, then workers,
    then clients with another number there, and the former one in `queue_shards_before`. When a queue grows, keys keep
    their lanes for as long as that is set. Without it, and for the keys in lanes that are given up when a queue
    shrinks, a key that is sent before and after the change may be two jobs.
    """

    model_config = SettingsConfigDict(
        env_prefix="JOBLOG_",
        env_nested_delimiter="__",
        env_file=".env",
        env_ignore_empty=True,
        dotenv_filtering="match_prefix",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    config: FilledPath | None = None
    directory: FilledPath = Path(".joblog")
    topic_prefix: str = Field("joblog.", pattern=r"^[A-Za-z0-9._-]{0,100}$")
    lanes: int = Field(4, ge=1, le=LANES_MAX)
    replication: int = Field(1, ge=1, le=10)
    queue_shards: Annotated[dict[QueueName, int], NoDecode, BeforeValidator(mapped)] = {}
    queue_shards_before: Annotated[dict[QueueName, int], NoDecode, BeforeValidator(mapped)] = {}
    kafka: KafkaSettings = KafkaSettings()
    postgres: PostgresSettings = PostgresSettings()
    client: ClientSettings = ClientSettings()
    elector: ElectorSettings = ElectorSettings()
    worker: WorkerSettings = WorkerSettings()
    recurring: RecurringSettings = RecurringSettings()
    triggers: TriggerSettings = TriggerSettings()
    outbox: OutboxSettings = OutboxSettings()
    hooks: HookSettings = HookSettings()
    http: HttpSettings = HttpSettings()
    tracing: TracingSettings = TracingSettings()
    metrics: MetricsSettings = MetricsSettings()
    logs: LogSettings = LogSettings()
    expiry: ExpirySettings = ExpirySettings()

    @classmethod
    def load(cls, config: Path | None = None, **overrides: Any) -> Self:
        """Read all sources; `overrides` take precedence. SettingsError names what is wrong, and where."""
        if config is not None:
            overrides["config"] = config
        # The same in a file is refused, too. A variable that resembles no setting may be another program's.
        wrong = [
            f"{name} is not a setting; did you mean {meant}?" for name, meant in unread(os.environ, cls) if meant
        ]
        if wrong:
            raise SettingsError("\n".join(wrong))
        try:
            return cls(**overrides)
        except ValidationError as exc:
            raise SettingsError(explain(exc, cls)) from exc
        except pydantic_settings.SettingsError as exc:
            raise SettingsError(f"{exc}: {exc.__cause__}") from exc

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the name is the library's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        weaker = (env_settings, dotenv_settings, TomlSource(settings_cls), AddressesSource(settings_cls))
        return init_settings, *map(Yielding, weaker)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("queue_shards", "queue_shards_before"):
            for queue, shards in getattr(self, name).items():
                if not 1 <= shards <= self.lanes:
                    raise ValueError(f"{name}: {queue} has {shards}; it can have 1 to {self.lanes} (lanes)")
        for queue, before in self.queue_shards_before.items():
            if before == self.queue_shards.get(queue, 1):
                raise ValueError(f"queue_shards_before: {queue} has {before} now, too: leave it out")
        if self.elector.lease_s < 3 * self.worker.renew_s:
            raise ValueError(
                f"elector.lease_s ({self.elector.lease_s:g}) must be at least three times worker.renew_s "
                f"({self.worker.renew_s:g}), so that a worker survives two lost renewals"
            )
        return self

    @property
    def names(self) -> TopicNames:
        return TopicNames(self.topic_prefix)

    @property
    def shards_served(self) -> dict[str, int]:
        """Over how many lanes electors and workers look after each queue that has, or had, more than one."""
        return served_shards(self.queue_shards, self.queue_shards_before)

    @property
    def instance(self) -> str:
        """The elector's id: a name that stays the same over restarts."""
        return self.elector.id or socket.gethostname()

    def dsn(self) -> str:
        """The address of Postgres; SettingsError if it is not set."""
        if self.postgres.dsn is None:
            raise SettingsError(
                "no Postgres is set: give JOBLOG_POSTGRES__DSN or JOBLOG_POSTGRES__DSN_FILE (postgres.dsn), "
                f"or start `joblog up` here ({Path(os.curdir).resolve()})"
            )
        return self.postgres.dsn.get_secret_value()

    def outbox_dsn(self) -> str:
        """The address of the database with the outbox; SettingsError if it is not set."""
        return self.dsn() if self.outbox.dsn is None else self.outbox.dsn.get_secret_value()
