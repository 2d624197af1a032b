"""Records as Parquet, for what analyses tables; needs the extra `parquet`.

`key`, `value` and `headers` are the records byte for byte; the other columns repeat what an event says, for queries.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from joblog.streams.archive.choice import Said, said_by
from joblog.streams.archive.lines import Archived
from joblog.streams.errors import SettingsError

_BATCH: Final = 10_000


def pyarrow() -> Any:
    """The package, if it is installed; SettingsError says how to install it."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise SettingsError(f"Parquet needs the package {error.name}: pip install 'joblog[parquet]'") from error


def _schema(arrow: Any) -> Any:
    header = arrow.struct([("name", arrow.string()), ("value", arrow.binary())])
    return arrow.schema(
        [
            ("lane", arrow.int32()),
            ("offset", arrow.int64()),
            ("timestamp_ms", arrow.int64()),
            ("key", arrow.binary()),
            ("value", arrow.binary()),
            ("headers", arrow.list_(header)),
            *((name, arrow.string()) for name in Said.__struct_fields__),
        ]
    )


class ParquetWriter:
    """Writes a Parquet file; `size` is how many bytes its values have."""

    def __init__(self, path: Path) -> None:
        self._arrow = pyarrow()
        self._schema = _schema(self._arrow)
        self._writer = self._arrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self.size = 0

    def write(self, records: list[Archived]) -> None:
        self._rows += map(_row, records)
        self.size += sum(len(record.value or b"") for record in records)
        if len(self._rows) >= _BATCH:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _row(record: Archived) -> dict[str, Any]:
    said = said_by(record.value)
    headers = None
    if record.headers is not None:
        headers = [
            {"name": name, "value": content.encode() if isinstance(content, str) else content}
            for name, content in record.headers
        ]
    told = {name: getattr(said, name) for name in Said.__struct_fields__} if said is not None else {}
    return {**record._asdict(), "headers": headers, **told}


def read_parquet(path: Path) -> Iterator[Archived]:
    """The records of a file."""
    arrow = pyarrow()
    columns = list(Archived._fields)
    with arrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH, columns=columns):
            for row in batch.to_pylist():
                if row["headers"] is not None:
                    row["headers"] = [(one["name"], one["value"]) for one in row["headers"]]
                yield Archived(**row)
