"""The credentials of librdkafka's properties, as Faust takes them."""

import ssl
from collections.abc import Mapping
from typing import Any, Final

import faust
from joblog.streams.errors import SettingsError

_PASSWORD_MECHANISMS: Final = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})


def credentials(options: Mapping[str, str], role: str) -> Any:
    """Faust's form of librdkafka's properties; None for a connection in the clear.

    Raises SettingsError for a mechanism that cannot be used with Faust, and for certificates that cannot be read.
    """
    protocol = options.get("security.protocol", "PLAINTEXT")
    context = _tls(options) if protocol.endswith("SSL") else None
    if not protocol.startswith("SASL"):
        return faust.SSLCredentials(context) if context is not None else None
    mechanism = options.get("sasl.mechanism", "")
    if mechanism not in _PASSWORD_MECHANISMS:
        raise SettingsError(
            f"{role} cannot use sasl_mechanism {mechanism}: give this process PLAIN or SCRAM credentials"
        )
    return faust.SASLCredentials(
        username=options.get("sasl.username"),
        password=options.get("sasl.password"),
        ssl_context=context,
        mechanism=mechanism,
    )


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if certificate := options.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, options.get("ssl.key.location"), options.get("ssl.key.password"))
    except OSError as exc:
        raise SettingsError(f"the certificates of kafka.ssl_* cannot be used: {exc}") from exc
    return context
