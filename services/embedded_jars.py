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
from tempfile import mkdtemp

import requests
from filelock import FileLock
from jgo.config import GlobalSettings
from jgo.maven import Artifact, MavenContext
from jgo.parse import Coordinate
from platformdirs import user_cache_path

from joblog.streams.errors import StackError

KAFKA_VERSION = "4.4.0"
SERVER = Coordinate("org.apache.kafka", "kafka_2.13", KAFKA_VERSION, scope="compile")
# What leads the server's log lines (slf4j 1.7) to the log4j that it brings along, and no more.
LOG_BINDING = ("org.apache.logging.log4j", "log4j-slf4j-impl")
LOG_CORE = "log4j-core"
DOWNLOAD_MB = 45
REQUEST_TIMEOUT_S = 60


def kafka_jars(progress: Callable[[str], None], cache: Path | None = None) -> Path:
    """The directory with Kafka's jars; fetches them when this user does not have them yet."""
    cache = cache or user_cache_path("joblog")
    jars = cache / f"kafka-{KAFKA_VERSION}"
    if jars.exists():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"kafka-{KAFKA_VERSION}.lock"):
        if not jars.exists():
            _fetch(jars, progress)
    return jars


def _fetch(jars: Path, progress: Callable[[str], None]) -> None:
    progress(f"fetching Apache Kafka {KAFKA_VERSION} from Maven (about {DOWNLOAD_MB} MB), once ...")
    staging = Path(mkdtemp(prefix=f"{jars.name}.", dir=jars.parent))
    try:
        complete = staging / "jars"
        complete.mkdir()
        context = maven_context(staging / "maven")
        artifacts = _resolve(context)
        for number, artifact in enumerate(artifacts, start=1):
            shutil.copyfile(_whole_jar(artifact), complete / artifact.filename)
            progress(f"fetching Apache Kafka: {number} of {len(artifacts)} files ({artifact.filename})")
        complete.rename(jars)
    except (OSError, RuntimeError, ValueError, requests.RequestException) as exc:
        raise StackError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven: {exc}. "
            "Check the network and try again; a mirror is named in jgo's settings (~/.config/jgo.conf, "
            "section [repositories], name `central`)"
        ) from exc
    finally:
        shutil.rmtree(staging)


def maven_context(staging: Path) -> MavenContext:
    """Maven as the user's jgo settings have it: their repositories first, what they hold already is not fetched."""
    settings = GlobalSettings.load()
    context = MavenContext(repo_cache=staging, local_repos=[settings.repo_cache], timeout=REQUEST_TIMEOUT_S)
    context.remote_repos = {**settings.repositories, **context.remote_repos, **settings.repositories}
    return context


def _resolve(context: MavenContext) -> Sequence[Artifact]:
    """The server, what it needs to run, and the log binding of the same version as its log4j.

    The binding is not resolved together with the server: jgo would let the versions that log4j's own
    project manages win over those that Kafka asks for.
    """
    inputs, transitive = context.resolver.resolve([context.create_dependency(SERVER)])
    needed = [*inputs, *(each for each in transitive if each.scope in ("compile", "runtime"))]
    artifacts: list[Artifact] = [each.artifact for each in needed]
    version = next(each.version for each in artifacts if each.artifactId == LOG_CORE)
    return [*artifacts, context.project(*LOG_BINDING).at_version(version).artifact()]


def _whole_jar(artifact: Artifact) -> Path:
    """The artifact's file; refuses one that was cut short or changed on the way."""
    path = artifact.resolve()
    try:
        with zipfile.ZipFile(path) as jar:
            broken = jar.testzip()
    except (zipfile.BadZipFile, zlib.error) as exc:
        raise RuntimeError(f"{path} is not a whole jar ({exc}); delete it") from exc
    if broken is not None:
        raise RuntimeError(f"{path} is damaged at {broken}; delete it")
    return path
