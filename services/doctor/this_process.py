"""Checks of this process: versions and settings."""

import os
import platform
from collections.abc import Iterator

from confluent_kafka import libversion
from joblog.services.doctor.doctor import Finding, ok, warn
from joblog.services.roles.http import Build
from joblog.services.settings.errors import paths, unread
from joblog.services.settings.model import Settings

#: The oldest librdkafka with whose transactions and group protocol Joblog was tested.
_LIBRDKAFKA_MIN = 0x020A0000


def versions(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - all checks have one signature
    build = Build.current()
    yield ok("versions", f"joblog {build.version}, Python {build.python}, {platform.system()} {platform.machine()}")
    if libversion()[1] < _LIBRDKAFKA_MIN:
        yield warn("librdkafka", f"{build.librdkafka} is old", "pip install --upgrade confluent-kafka")
    else:
        yield ok("librdkafka", build.librdkafka)


def variables(settings: Settings) -> Iterator[Finding]:
    """Environment variables that look like settings but are not; misspelt ones are refused when settings are read."""
    known, unknown = list(paths(type(settings))), [name for name, _ in unread(os.environ, type(settings))]
    for name in unknown:
        yield warn(
            "settings", f"{name} is not a setting", "rename it, or ignore this; `joblog config show` lists all"
        )
    if not unknown:
        yield ok("settings", f"{len(known)} settings, consistent; `joblog config show` lists them")


def durability(settings: Settings) -> Iterator[Finding]:
    """Settings that are valid, but together may lose data or time."""
    if settings.replication == 2:
        yield warn(
            "replication",
            "with two replicas, the failure of one broker either stops all writes or leaves a single copy",
            "set JOBLOG_REPLICATION=3 before the topics are created",
        )
    slow_stop = settings.worker.grace_s > 25
    if slow_stop:
        yield warn(
            "worker.grace_s",
            f"{settings.worker.grace_s:g} s leave no margin within the 30 s that Kubernetes waits by default",
            "raise terminationGracePeriodSeconds, too",
        )
    if settings.replication != 2 and not slow_stop:
        yield ok("rules", f"lease {settings.elector.lease_s:g} s, renewed every {settings.worker.renew_s:g} s")
