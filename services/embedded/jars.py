"""Fetches Apache Kafka from Maven, once per user, as one directory of jars.

jgo writes a download straight to its final name, so a fetch that was cut short would look complete
for ever. Everything is therefore fetched into a staging directory, every jar is read to the end, and
the directory is renamed when all of them are whole. A file lock lets one process fetch while others wait.
"""

import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import ParseError

from filelock import FileLock
from jgo.config import GlobalSettings
from jgo.maven import Artifact, MavenContext
from jgo.parse import Coordinate
from joblog.streams.errors import StackError
from platformdirs import user_cache_path

VERSION = "4.4.0"
GROUP = "org.apache.kafka"
SERVER = Coordinate(GROUP, "kafka_2.13", VERSION, scope="compile")
# What leads the server's log lines (slf4j 1.7) to the log4j that it brings along.
LOG_CORE = "log4j-core"
LOG_BINDING = ("org.apache.logging.log4j", "log4j-slf4j-impl")
DOWNLOAD_MB = 45
PROGRESS_EVERY_BYTES = 10_000_000
REQUEST_TIMEOUT_S = 60


def kafka_jars(progress: Callable[[str], None], cache: Path | None = None) -> Path:
    """The directory with Kafka's jars; downloads them if this user does not have them yet.

    Raises StackError, naming the fix, if they cannot be downloaded or stored.
    """
    cache = cache or user_cache_path("joblog")
    jars = cache / f"kafka-{VERSION}"
    if jars.exists():
        return jars
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{jars.name}.lock"):
            if not jars.exists():
                progress(f"downloading Apache Kafka {VERSION} from Maven (about {DOWNLOAD_MB} MB, only once) ...")
                _fetch(jars, progress)
    except (OSError, RuntimeError, ValueError, LookupError, ParseError) as exc:
        raise StackError(
            f"Apache Kafka {VERSION} could not be downloaded from Maven into {cache}: {exc}. Check the network "
            "and try again; jgo's settings (~/.config/jgo.conf) can name a mirror: `central`, in [repositories]"
        ) from exc
    return jars


def _fetch(jars: Path, progress: Callable[[str], None]) -> None:
    """Fill the directory `jars`; if that fails, nothing has this name."""
    staging = jars.with_name(f"{jars.name}.partial")
    if staging.exists():
        shutil.rmtree(staging)
    complete = staging / "jars"
    complete.mkdir(parents=True)
    fetched = reported = 0
    for artifact in _resolve(maven_context(staging / "maven")):
        fetched += shutil.copyfile(_whole_jar(artifact), complete / artifact.filename).stat().st_size
        if fetched - reported >= PROGRESS_EVERY_BYTES:
            reported = fetched
            progress(f"downloaded {fetched // 1_000_000} of about {DOWNLOAD_MB} MB")
    complete.rename(jars)
    shutil.rmtree(staging)


def maven_context(staging: Path) -> MavenContext:
    """Maven with the user's jgo settings: their repositories first, and what their cache has is not downloaded."""
    settings = GlobalSettings.load()
    context = MavenContext(repo_cache=staging, local_repos=[settings.repo_cache], timeout=REQUEST_TIMEOUT_S)
    context.remote_repos = {**settings.repositories, **context.remote_repos, **settings.repositories}
    return context


def _resolve(context: MavenContext) -> Sequence[Artifact]:
    """The server, what it needs to run, and the log binding of the same version as its log4j.

    The binding is not resolved together with the server: jgo would let the versions that log4j's own
    project manages win over those that Kafka asks for. Hence the check, too.
    """
    inputs, transitive = context.resolver.resolve([context.create_dependency(SERVER)])
    needed = [*inputs, *(each for each in transitive if each.scope in {"compile", "runtime"})]
    artifacts: list[Artifact] = [each.artifact for each in needed]
    for artifact in artifacts:
        if artifact.groupId == GROUP and artifact.version != VERSION:
            raise RuntimeError(f"{artifact} was resolved, which is not of version {VERSION}")
    versions = {artifact.artifactId: artifact.version for artifact in artifacts}
    return [*artifacts, context.project(*LOG_BINDING).at_version(versions[LOG_CORE]).artifact()]


def _whole_jar(artifact: Artifact) -> Path:
    """The artifact's file; refuses one that was cut short or damaged on the way."""
    path: Path = artifact.resolve()
    try:
        with zipfile.ZipFile(path) as jar:
            damaged = jar.testzip()
    except (zipfile.BadZipFile, zlib.error) as exc:
        raise RuntimeError(f"{path} is not a complete jar ({exc}): delete it") from exc
    if damaged is not None:
        raise RuntimeError(f"{path} is damaged at {damaged}: delete it")
    return path
