"""An archive that is not as it was written is refused with a clear error, before anything is read or written."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblog.services.cli.app import app
from joblog.streams.archive.importing import verify_files
from joblog.streams.archive.lines import Archived, LineWriter
from joblog.streams.archive.manifest import (
    ALL,
    NAME,
    VERSION,
    ArchiveError,
    File,
    Manifest,
    checksum,
    read_manifest,
)
from joblog.streams.archive.parquet import ParquetWriter
from joblog.streams.errors import InvalidData, JoblogError
from msgspec import structs
from typer.testing import CliRunner

RECORDS = [
    Archived(0, n, 1_800_000_000_000 + n, b"key", b'{"type":"job.enqueued","n":%d}' % n, None) for n in range(9)
]
#: Nobody listens there: whoever asks a broker fails otherwise than these tests expect.
NOWHERE = {"JOBLOG_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "JOBLOG_LANES": "2"}


def archive(directory: Path, kind: str = "jsonl") -> Manifest:
    """Three files of one lane."""
    made = Manifest(
        VERSION, "a1", "t.events", "c", "2027-01-01T00:00:00+00:00", kind, False, ALL, {0: (0, 9)}, {0: 0}
    )
    for first in (0, 3, 6):
        path = directory / f"events-0000-{first:012}.{kind}"
        writer: Any = ParquetWriter(path) if kind == "parquet" else LineWriter(path, is_packed=False)
        writer.write(RECORDS[first : first + 3])
        writer.close()
        made.add(File(path.name, 0, 3, first, first + 2, first + 3, path.stat().st_size, checksum(path)))
    made.complete = True
    made.write(directory)
    return made


@pytest.fixture(scope="module", params=["jsonl", "parquet"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("archive")
    archive(directory, request.param)
    return directory


@contextmanager
def copied(good: Path) -> Iterator[Path]:
    with TemporaryDirectory() as place:
        yield Path(shutil.copytree(good, Path(place) / "copy"))


def checked(directory: Path) -> Manifest:
    found = read_manifest(directory)
    assert found is not None
    verify_files(directory, found)
    return found


def complaint(directory: Path) -> str:
    """What is said of an archive; nothing if it is as it was written, by what its manifest means, too."""
    try:
        found = checked(directory)
    except (InvalidData, ArchiveError) as error:
        return str(error)
    assert (found.id, found.records, found.ranges, len(found.files)) == ("a1", 9, {0: (0, 9)}, 3)
    return ""


def test_a_good_archive_passes(good: Path) -> None:
    assert checked(good).records == 9


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_bit_that_flips_is_noticed_wherever_it_is(good: Path, data: st.DataObject) -> None:
    names = sorted(path.name for path in good.iterdir())
    assert len(names) == 4
    name = data.draw(st.sampled_from(names))
    content = bytearray((good / name).read_bytes())
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    content[place] ^= 1 << bit
    with copied(good) as directory:
        (directory / name).write_bytes(content)
        said = complaint(directory)
    # But for a space of the manifest that became another, or the name of a default that nobody reads.
    assert name in said or (name == NAME and not said)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_that_was_cut_short_is_noticed(good: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(path.name for path in good.iterdir())))
    content = (good / name).read_bytes()
    kept = data.draw(st.integers(0, len(content) - 2))  # the last byte of the manifest is a line's end
    with copied(good) as directory:
        (directory / name).write_bytes(content[:kept])
        with pytest.raises((InvalidData, ArchiveError), match=name):
            checked(directory)


def damaged(directory: Path, damage: str) -> None:
    found = read_manifest(directory)
    assert found is not None
    path = directory / found.files[1].name
    match damage:
        case "missing":
            path.unlink()
        case "longer":
            path.write_bytes(path.read_bytes() + b"\n")
        case "exchanged":
            shutil.copy(directory / found.files[0].name, path)
        case "newer":
            structs.replace(found, version=VERSION + 1).write(directory)
        case "unfinished":
            structs.replace(found, complete=False).write(directory)
        case "elsewhere":
            first, *rest = found.files
            structs.replace(found, files=[structs.replace(first, name="../secret"), *rest]).write(directory)
        case "no manifest":
            (directory / NAME).unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", "is missing: copy the whole directory"),
        ("longer", "is not as it was written"),
        ("exchanged", "is not as it was written"),
        ("newer", f"has version {VERSION + 1}, this Joblog reads {VERSION}"),
        ("unfinished", "is not complete: run the same `joblog replay export` again"),
        ("elsewhere", "names a file outside of its directory: '../secret'"),
        ("no manifest", "holds no manifest.json"),
    ],
)
def test_the_command_refuses_damage_before_it_asks_any_broker(good: Path, damage: str, said: str) -> None:
    with copied(good) as directory:
        damaged(directory, damage)
        done = CliRunner().invoke(app, ["replay", "import", str(directory), "--into-prefix", "copy."], env=NOWHERE)
    assert isinstance(done.exception, JoblogError)
    assert said in str(done.exception)


def test_the_command_refuses_live_topics_unless_the_name_is_typed(good: Path) -> None:
    def refused(*options: str) -> str:
        done = CliRunner().invoke(app, ["replay", "import", str(good), *options], env=NOWHERE)
        assert isinstance(done.exception, InvalidData)
        return str(done.exception)

    assert "joblog.events is a live topic" in refused("--into-prefix", "joblog.")
    assert "give --into-live-topic joblog.events instead" in refused("--into-prefix", "joblog.")
    assert "say where to" in refused()
    assert "say where to" in refused("--into-prefix", "copy.", "--into-live-topic", "joblog.events")
    for word in ("events", "joblog.Events", "joblog.state", "joblog.events ", ""):
        assert "the events of this installation are joblog.events" in refused("--into-live-topic", word)
