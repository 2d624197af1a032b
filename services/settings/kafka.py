"""How to reach the brokers: addresses, credentials, and the properties of librdkafka that may be set."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from joblog.services.settings.sources import SecretFiles
from joblog.services.settings.values import FilledPath, Secret, mapped
from joblog.streams.kafka.clients import KafkaConfig
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

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
    """Broker addresses and credentials.

    - bootstrap_servers: `host:port`, with commas between them.
    - sasl_*, ssl_*: named as librdkafka's properties, with underscores.
    - extra: other properties of librdkafka, as a table; only those of `EXTRA_PREFIXES` and `EXTRA_NAMES`.
    """

    bootstrap_servers: str = Field("127.0.0.1:9092", min_length=1)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] | None = None
    sasl_username: str | None = Field(None, min_length=1)
    sasl_password: Secret | None = None
    sasl_password_file: FilledPath | None = None
    ssl_ca_location: FilledPath | None = None
    ssl_certificate_location: FilledPath | None = None
    ssl_key_location: FilledPath | None = None
    ssl_key_password: Secret | None = None
    ssl_key_password_file: FilledPath | None = None
    extra: Annotated[dict[str, str], NoDecode, BeforeValidator(mapped), AfterValidator(_allowed)] = {}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for is_wrong, what in (*self._sasl_rules(), *self._ssl_rules()):
            if is_wrong:
                raise ValueError(what)
        return self

    def _sasl_rules(self) -> Sequence[tuple[bool, str]]:
        protocol, mechanism = self.security_protocol, self.sasl_mechanism
        is_sasl, has_password = protocol.startswith("SASL"), (mechanism or "").startswith(("PLAIN", "SCRAM"))
        given = {"sasl_username": self.sasl_username, "sasl_password": self.sasl_password}
        idle = [name for name, value in given.items() if value is not None]
        return (
            (
                not is_sasl and bool(mechanism or idle),
                f"sasl_* has no effect: security_protocol is {protocol}: set it to SASL_SSL or SASL_PLAINTEXT",
            ),
            (is_sasl and mechanism is None, f"security_protocol {protocol} needs a sasl_mechanism"),
            (
                has_password and None in given.values(),
                f"sasl_mechanism {mechanism} needs sasl_username and sasl_password",
            ),
            (
                is_sasl and not has_password and bool(idle),
                f"sasl_mechanism {mechanism} does not use {' and '.join(idle)}: leave it out (see kafka.extra)",
            ),
        )

    def _ssl_rules(self) -> Sequence[tuple[bool, str]]:
        protocol = self.security_protocol
        is_given = {name: value is not None for name, value in vars(self).items() if name.startswith("ssl_")}
        key, certificate = is_given["ssl_key_location"], is_given["ssl_certificate_location"]
        return (
            (
                not protocol.endswith("SSL") and any(is_given.values()),
                f"ssl_* has no effect: security_protocol is {protocol}: set it to SSL or SASL_SSL",
            ),
            (is_given["ssl_key_password"] and not key, "ssl_key_password has no effect without ssl_key_location"),
            (key and not certificate, "ssl_key_location has no effect without ssl_certificate_location"),
            (certificate and not key, "ssl_certificate_location needs ssl_key_location, its private key"),
        )

    def config(self) -> KafkaConfig:
        """As the clients take it."""
        named: dict[str, Any] = {"security.protocol": self.security_protocol} | {
            name.replace("_", "."): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in vars(self).items()
            if name.startswith(("sasl_", "ssl_")) and not name.endswith("_file") and value is not None
        }
        return KafkaConfig(self.bootstrap_servers, self.extra | named)
