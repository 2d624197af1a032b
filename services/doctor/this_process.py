"""The doctor looks at this process: versions and settings."""

import os
import platform
from collections.abc import Iterator

from confluent_kafka import libversion
from joblog.services.doctor.doctor import Finding, ok, warn
from joblog.services.roles.http import Build
from joblog.services.settings.errors import paths, unread
from joblog.services.settings.model import Settings

#: From here on librdkafka's transactions and group protocol are the ones that Joblog was tested with.
_LIBRDKAFKA_MIN = 0x020A0000


def versions(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - all checks are called alike
    build = Build.current()
    yield ok("versions", f"joblog {build.version}, Python {build.python}, {platform.system()} {platform.machine()}")
    if libversion()[1] < _LIBRDKAFKA_MIN:
        yield warn("librdkafka", f"{build.librdkafka} is old", "pip install --upgrade confluent-kafka")
    else:
        yield ok("librdkafka", build.librdkafka)


def variables(settings: Settings) -> Iterator[Finding]:
    """Variables that look like settings and are none; those that are nearly one are refused before."""
    known, unknown = list(paths(type(settings))), [name for name, _ in unread(os.environ, type(settings))]
    for name in unknown:
        yield warn(
            "settings", f"{name} is not a setting", "rename it, or ignore this; `joblog config show` lists all"
        )
    if not unknown:
        yield ok("settings", f"{len(known)} settings, all consistent; `joblog config show` lists them")


def durability(settings: Settings) -> Iterator[Finding]:
    """Settings that each are right, and together lose data, or time."""
    if settings.replication == 2:
        yield warn(
            "replication",
            "two copies: either one broker's end stops all writes, or one copy is all that is sure",
            "set JOBLOG_REPLICATION=3 before the topics are created",
        )
    slow_stop = settings.worker.grace_s > 25
    if slow_stop:
        yield warn(
            "worker.grace_s",
            f"{settings.worker.grace_s:g} s is more than the 30 s that Kubernetes waits, less a margin",
            "raise terminationGracePeriodSeconds with it",
        )
    if settings.replication != 2 and not slow_stop:
        yield ok("rules", f"lease {settings.elector.lease_s:g} s, renewed every {settings.worker.renew_s:g} s")
