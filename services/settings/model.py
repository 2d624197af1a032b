"""Settings: everything that can be set, in one frozen model that is read once, when a process starts.

In order of decreasing precedence: environment (`JOBLOG_KAFKA__BOOTSTRAP_SERVERS`), `.env`, a TOML file
(`JOBLOG_CONFIG`, or `joblog.toml` where the process runs), and the addresses that `joblog up` leaves in its
directory. A secret may be in a file of its own: `JOBLOG_POSTGRES__DSN_FILE`. Times are in seconds.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import pydantic_settings
from joblog.services.settings.errors import explain, unread
from joblog.services.settings.sources import AddressesSource, SecretFiles, TomlSource, Yielding
from joblog.services.settings.values import Modules, Queues, mapped
from joblog.streams.contract.codec import VALUE_BYTES_MAX
from joblog.streams.contract.fields import WORKER_PATTERN, QueueName
from joblog.streams.contract.ids import LANES_MAX
from joblog.streams.contract.shards import served_shards
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import SettingsError
from joblog.streams.kafka.clients import KafkaConfig
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Name = Annotated[str, StringConstraints(pattern=WORKER_PATTERN, max_length=100)]


#: Properties of librdkafka that can be passed on; all others are set by Joblog, or have settings of their own.
EXTRA_PREFIXES: Final = ("socket.", "metadata.", "topic.metadata.", "sasl.kerberos.", "sasl.oauthbearer.", "ssl.")
EXTRA_NAMES: Final = frozenset(
    {"broker.address.family", "client.dns.lookup", "client.rack", "connections.max.idle.ms", "debug", "log_level"}
)


def _allowed(extra: Mapping[str, str]) -> Mapping[str, str]:
    wrong = [name for name in extra if name not in EXTRA_NAMES and not name.startswith(EXTRA_PREFIXES)]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)} cannot be set here; only {', '.join(sorted(EXTRA_NAMES))} "
            f"and what begins with {', '.join(EXTRA_PREFIXES)}"
        )
    return extra


class KafkaSettings(SecretFiles):
    """Broker addresses and credentials."""

    bootstrap_servers: str = Field("127.0.0.1:9092", min_length=1)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = None
    ssl_ca_location: Path | None = None
    ssl_certificate_location: Path | None = None
    ssl_key_location: Path | None = None
    ssl_key_password: SecretStr | None = None
    ssl_key_password_file: Path | None = None
    extra: Annotated[dict[str, str], NoDecode, BeforeValidator(mapped), AfterValidator(_allowed)] = {}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        protocol = self.security_protocol
        sasl = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if not protocol.startswith("SASL") and any(value is not None for value in sasl):
            raise ValueError(f"sasl_* is set, but security_protocol is {protocol}: use SASL_SSL or SASL_PLAINTEXT")
        if protocol.startswith("SASL") and self.sasl_mechanism is None:
            raise ValueError(f"security_protocol {protocol} needs a sasl_mechanism")
        if (self.sasl_mechanism or "").startswith(("PLAIN", "SCRAM")) and None in sasl:
            raise ValueError(f"sasl_mechanism {self.sasl_mechanism} needs sasl_username and sasl_password")
        if not protocol.endswith("SSL") and any(
            getattr(self, name) for name in vars(self) if name.startswith("ssl_")
        ):
            raise ValueError(f"ssl_* is set, but security_protocol is {protocol}: use SSL or SASL_SSL")
        return self

    def config(self) -> KafkaConfig:
        """As the clients take it."""
        named: dict[str, Any] = {"security.protocol": self.security_protocol} | {
            name.replace("_", "."): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in vars(self).items()
            if name.startswith(("sasl_", "ssl_")) and not name.endswith("_file") and value is not None
        }
        return KafkaConfig(self.bootstrap_servers, self.extra | named)


class PostgresSettings(SecretFiles):
    """The read model; needed by the projector and by commands that show jobs.

    - dsn: `postgresql://user:password@host:port/database`.
    - schema: where the tables are; another one beside it can be built from the log.
    - prepare: create or migrate the tables when a projector starts.
    """

    dsn: SecretStr | None = None
    dsn_file: Path | None = None
    schema_name: str = Field("joblog", alias="schema", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    prepare: bool = True


class ClientSettings(SecretFiles):
    """The client, which creates jobs.

    - name: part of the commands' `source`; default: the host name.
    - timeout_s: how long to wait for Kafka's acknowledgement.
    """

    name: Name | None = None
    timeout_s: Seconds = 10.0
    args_bytes_max: int = Field(262_144, ge=2, le=VALUE_BYTES_MAX - 16_384)


class ElectorSettings(SecretFiles):
    """The elector, which decides what happens to jobs.

    - id: its name, the same after a restart and unique among electors; default: the host name.
    - batch_max: commands and reports in one transaction.
    - lease_s: a worker that is silent for this long is lost, and its jobs go to others.
    - overdue_s: a scheduled job that is this late is started without its timer.
    - remembered: ended jobs that a lane remembers in order to refuse duplicates.
    - failed_kept: failed jobs that a lane keeps in memory for a requeue.
    """

    id: Name | None = None
    batch_max: int = Field(10_000, ge=1, le=100_000)
    lease_s: Seconds = 15.0
    overdue_s: Seconds = 5.0
    remembered: int = Field(30_000, ge=0, le=10_000_000)
    failed_kept: int = Field(10_000, ge=0, le=10_000_000)


class WorkerSettings(SecretFiles):
    """The worker, which runs jobs.

    - tasks: modules with tasks.
    - queues: in the order of preference; those that its tasks declare if empty, `default` as the last of them.
    - slots: jobs at once; default: by the number of cores. prefetch: extra jobs to hold ready, for short jobs.
    - renew_s: how often the lease is renewed; grace_s: how long running jobs may take to end at a stop.
    """

    name: Name | None = None
    tasks: Modules = ()
    queues: Queues = ()
    slots: int | None = Field(None, ge=1, le=10_000)
    prefetch: int = Field(0, ge=0, le=10_000)
    renew_s: Seconds = 3.0
    grace_s: float = Field(25.0, ge=0, le=86_400)
    release_after_s: Seconds = 1.0
    result_bytes_max: int = Field(262_144, ge=0, le=1_000_000)


class HttpSettings(SecretFiles):
    """Where a role answers /livez, /readyz, /metrics and /version; port 0 is any free one."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65_535)


class LogSettings(SecretFiles):
    """Logs on stderr; `auto` is readable text on a terminal and JSON elsewhere."""

    format: Literal["auto", "console", "json"] = "auto"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(BaseSettings):
    """All settings; make it with `Settings.load`, which explains what is wrong by the variable's name.

    - config: the TOML file; directory: where `joblog up` keeps its data and addresses.
    - lanes: partitions of the topics; fixed for the life of the installation.
    - replication: replicas of each topic, when it is created.
    - queue_shards: over how many neighbouring lanes each queue is spread that shall have more than one.
    - queue_shards_before: over how many lanes each of these queues was spread before its number was changed.

    To grow a queue, set the new number in `queue_shards`, and restart electors first, then workers, then clients: an
    elector rejects jobs in lanes that it does not know of. To shrink it, set the new number there and the former one
    in `queue_shards_before`, in any order: clients write to the new lanes only, the former ones are served until they
    are empty (`joblog doctor` fails when jobs are left in lanes that are not served), then drop the second setting.

    The id of a job with an idempotency key names its lane. When a queue grows, name the former number in
    `queue_shards_before`, too: keys keep their lanes for as long as it is set. Without it, and for the keys in lanes
    that are given up when a queue shrinks, a key that is sent before and after the change may be two jobs.
    """

    model_config = SettingsConfigDict(
        env_prefix="JOBLOG_",
        env_nested_delimiter="__",
        env_file=".env",
        dotenv_filtering="match_prefix",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    config: Path | None = None
    directory: Path = Path(".joblog")
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
    http: HttpSettings = HttpSettings()
    logs: LogSettings = LogSettings()

    @classmethod
    def load(cls, config: Path | None = None, **overrides: Any) -> Self:
        """Read all sources; `overrides` are stronger than any. SettingsError names what is wrong, and where."""
        if config is not None:
            overrides["config"] = config
        # The same in a file is refused, too. What is near to no setting may be another program's.
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
                f"elector.lease_s ({self.elector.lease_s:g}) must be three times worker.renew_s "
                f"({self.worker.renew_s:g}) at least: two lost renewals must not cost a worker its jobs"
            )
        return self

    @property
    def names(self) -> TopicNames:
        return TopicNames(self.topic_prefix)

    @property
    def shards_served(self) -> Mapping[str, int]:
        """Over how many lanes electors and workers look after each queue that has, or had, more than one."""
        return served_shards(self.queue_shards, self.queue_shards_before)

    @property
    def instance(self) -> str:
        """The name of the process that must have one which outlives restarts."""
        return self.elector.id or socket.gethostname()

    def dsn(self) -> str:
        """Where Postgres is; SettingsError if nobody said it."""
        if self.postgres.dsn is None:
            raise SettingsError(
                "no Postgres is set: give JOBLOG_POSTGRES__DSN or JOBLOG_POSTGRES__DSN_FILE (postgres.dsn), "
                f"or start `joblog up` here ({Path(os.curdir).resolve()})"
            )
        return self.postgres.dsn.get_secret_value()
