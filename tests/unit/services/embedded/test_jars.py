import threading
import zipfile
from pathlib import Path

import pytest
from joblog.services.embedded import jars as embedded_jars
from joblog.services.embedded.jars import kafka_jars
from joblog.streams.errors import StackError

KAFKA = "org.apache.kafka"
LOG4J = "org.apache.logging.log4j"
NEEDED = [(KAFKA, "kafka-clients", "4.4.0"), (LOG4J, "log4j-core", "2.25.5")]
EVERY_JAR = [
    "kafka-clients-4.4.0.jar",
    "kafka_2.13-4.4.0.jar",
    "log4j-core-2.25.5.jar",
    "log4j-slf4j-impl-2.25.5.jar",
]


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local Maven repository with a small server; nothing can be fetched from elsewhere."""
    settings = tmp_path / "jgo.conf"
    settings.write_text("[repositories]\ncentral = http://127.0.0.1:9\n")
    repository = tmp_path / "m2"
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    monkeypatch.setenv("M2_REPO", str(repository))
    publish(repository, KAFKA, "kafka_2.13", "4.4.0", needs=NEEDED)
    for group, name, version in [*NEEDED, (LOG4J, "log4j-slf4j-impl", "2.25.5")]:
        publish(repository, group, name, version)
    return repository


def publish(
    repository: Path, group: str, name: str, version: str, needs: list[tuple[str, str, str]] | None = None
) -> Path:
    folder = repository / group.replace(".", "/") / name / version
    folder.mkdir(parents=True)
    elements = [
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
        f"<version>{version}</version><scope>runtime</scope></dependency>"
        for group, name, version in needs or []
    ]
    (folder / f"{name}-{version}.pom").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        f"<groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>"
        f"<dependencies>{''.join(elements)}</dependencies></project>"
    )
    jar = folder / f"{name}-{version}.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("Main.class", name * 1000)
    return jar


def test_the_server_what_it_needs_and_a_log_binding_of_the_same_version_are_fetched(
    maven: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    jars = kafka_jars(said.append, tmp_path / "cache")
    assert sorted(jar.name for jar in jars.iterdir()) == EVERY_JAR
    assert said == ["downloading Apache Kafka 4.4.0 from Maven (about 45 MB, only once) ..."]
    assert sorted(each.name for each in (tmp_path / "cache").iterdir() if each.is_dir()) == ["kafka-4.4.0"]


def test_a_second_time_nothing_is_fetched(maven: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = kafka_jars(said.append, tmp_path / "cache")
    said.clear()
    assert kafka_jars(said.append, tmp_path / "cache") == first
    assert said == []


def test_of_two_at_once_one_fetches_and_the_other_waits(maven: Path, tmp_path: Path) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=kafka_jars, args=(said.append, tmp_path / "cache")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
    assert len(list((tmp_path / "cache" / "kafka-4.4.0").iterdir())) == len(EVERY_JAR)


@pytest.mark.parametrize("damage", ["cut short", "changed"])
def test_a_damaged_jar_is_refused_and_nothing_is_kept(maven: Path, tmp_path: Path, damage: str) -> None:
    jar = maven / "org/apache/kafka/kafka-clients/4.4.0/kafka-clients-4.4.0.jar"
    whole = jar.read_bytes()
    jar.write_bytes(whole[:-30] if damage == "cut short" else whole.replace(b"clients", b"CLIENTS", 1))
    with pytest.raises(StackError, match=r"kafka-clients-4\.4\.0\.jar is (not a complete jar|damaged).*: delete it"):
        kafka_jars(print, tmp_path / "cache")
    assert not (tmp_path / "cache" / "kafka-4.4.0").exists()
    jar.write_bytes(whole)
    assert len(list(kafka_jars(print, tmp_path / "cache").iterdir())) == len(EVERY_JAR)


def test_what_cannot_be_reached_is_an_error_that_names_the_mirror_setting(maven: Path, tmp_path: Path) -> None:
    (maven / "org/apache/kafka/kafka-clients/4.4.0/kafka-clients-4.4.0.jar").unlink()
    with pytest.raises(StackError, match=r"could not be downloaded.*jgo\.conf\) can name a mirror"):
        kafka_jars(print, tmp_path / "cache")


def test_a_part_of_another_kafka_version_is_refused(
    maven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_jars, "VERSION", "4.4.1")
    with pytest.raises(StackError, match=r"4\.4\.0 was resolved, which is not of version 4\.4\.1"):
        kafka_jars(print, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(maven: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StackError, match=f"into {tmp_path / 'cache'}"):
        kafka_jars(print, tmp_path / "cache")
