"""Parquet and CSV files as record batches, read as often as needed.

In: a path. Out: pyarrow record batches of some columns. Memory: one batch of 50,000 rows, or 16 MiB of a CSV
file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyarrow import csv, parquet

_BATCH_ROWS: Final = 50_000
_CSV_BLOCK_BYTES: Final = 16 * 1024 * 1024


class Table:
    """A file that is read in batches, as often as needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: int | None = None
        suffixes = {suffix.lower() for suffix in path.suffixes}
        self._parquet = bool(suffixes & {".parquet", ".pq"})
        if not self._parquet and not suffixes & {".csv", ".tsv"}:
            raise ValueError(f'"{path}" must be a .parquet or a .csv file')
        self._delimiter = "\t" if ".tsv" in suffixes else ","
        if not path.is_file():
            raise FileNotFoundError(f'there is no file "{path}"')
        if self._parquet:
            with self._readable(), parquet.ParquetFile(path) as file:
                schema, self.rows = file.schema_arrow, file.metadata.num_rows
        else:
            with self._readable():
                schema = self._csv(None).schema
        self.names: list[str] = list(schema.names)
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f'"{path}" names the column "{twice}" twice')
        self.types = {name: str(schema.field(name).type) for name in schema.names}

    def check(self, columns: Sequence[str]) -> None:
        """Raise ValueError for a column that is not there or has two roles."""
        for name in columns:
            if name not in self.types:
                raise ValueError(f'"{self.path}" has no column "{name}"; it has {", ".join(self.names)}')
        if len(set(columns)) != len(columns):
            raise ValueError("a column cannot have two roles")

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Record batches of these columns."""
        with self._readable():
            if self._parquet:
                with parquet.ParquetFile(self.path) as file:
                    yield from file.iter_batches(_BATCH_ROWS, columns=list(columns))
            else:
                yield from self._csv(columns)

    def _csv(self, columns: Sequence[str] | None) -> Any:
        return csv.open_csv(
            self.path,
            csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
            csv.ParseOptions(delimiter=self._delimiter),
            csv.ConvertOptions(strings_can_be_null=True, include_columns=list(columns or ())),
        )

    def _readable(self) -> "_Readable":
        return _Readable(self.path)


class _Readable:
    """Turns pyarrow's errors into ValueError with the file's name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pa.ArrowException) and not isinstance(error, OSError):
            raise ValueError(f'"{self._path}" cannot be read: {error}') from error
