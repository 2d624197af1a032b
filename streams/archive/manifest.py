"""What an archive holds: its `manifest.json`, which is written anew whenever a file is complete."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from joblog.streams.errors import InvalidData, JoblogError
from msgspec import DecodeError, Struct, field, json, structs

NAME: Final = "manifest.json"
VERSION: Final = 1
_READ_BYTES: Final = 1_048_576


class ArchiveError(JoblogError):
    """An archive is not as its manifest says, or not what was asked for; the message says what to do."""


class Filters(Struct, frozen=True):
    """Which events are in the archive; all, where a filter is None."""

    queue: str | None = None
    task: str | None = None
    job: str | None = None
    state: str | None = None

    @property
    def is_empty(self) -> bool:
        return self == Filters()


ALL: Final = Filters()


class File(Struct, frozen=True):
    """A complete file: records of one lane in the order of the log; `next` is where the lane goes on behind it."""

    name: str
    lane: int
    records: int
    first_offset: int
    last_offset: int
    next: int
    bytes: int
    sha256: str


class Manifest(Struct):
    """An archive. Fields are only ever added.

    - id: names the archive, also in the progress of imports. topic, cluster: where it is from.
    - ranges: of each lane the first offset and the one behind the last. next: how far each lane is exported.
    - sha256: of all other fields.
    """

    version: int
    id: str
    topic: str
    cluster: str | None
    created_at: str
    format: str
    gzip: bool
    filters: Filters
    ranges: dict[int, tuple[int, int]]
    next: dict[int, int]
    files: list[File] = field(default_factory=list)
    records: int = 0
    complete: bool = False
    sha256: str = ""

    def add(self, file: File) -> None:
        """Take in a file that is complete."""
        self.files.append(file)
        self.records += file.records
        self.next[file.lane] = file.next

    def of_lane(self, lane: int) -> list[File]:
        """The files of a lane in the order of the log."""
        return [file for file in self.files if file.lane == lane]

    def checksum(self) -> str:
        """The SHA-256 of all fields but that of it."""
        return sha256(json.encode(structs.replace(self, sha256=""))).hexdigest()

    def write(self, directory: Path) -> None:
        """Put it into its directory, at once."""
        self.sha256 = self.checksum()
        unfinished = directory / f"{NAME}.part"
        unfinished.write_bytes(json.format(json.encode(self), indent=2) + b"\n")
        unfinished.rename(directory / NAME)


class _Version(Struct):
    version: int


_decode: Final = json.Decoder(Manifest).decode
_version: Final = json.Decoder(_Version).decode


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a directory, if it has one; InvalidData if it is not as it was written."""
    path = directory / NAME
    if not path.exists():
        return None
    data = path.read_bytes()
    try:
        version = _version(data).version
        if version != VERSION:
            raise InvalidData(f"{path} has version {version}, this Joblog reads {VERSION}: use the one that wrote it")
        found = _decode(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise InvalidData(f"{path} is not the manifest of an archive, or is damaged: {error}") from error
    if found.checksum() != found.sha256:
        raise InvalidData(f"{path} is not as it was written (SHA-256): copy it again, or export again")
    for file in found.files:
        if Path(file.name).name != file.name:
            raise InvalidData(f"{path} names a file outside of its directory: {file.name!r:.100}")
    return found


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def now() -> str:
    """The time, for `created_at`."""
    return datetime.now(UTC).isoformat(timespec="seconds")
