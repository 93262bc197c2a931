"""Batch, part 1: whatever holds rows as Arrow record batches, read as often as needed.

In: a path (Parquet, CSV or TSV, also compressed; OTLP as lines of JSON), a pandas or polars frame, a pyarrow table, or
a mapping of columns. Out: a Source. Memory: one batch of 50,000 rows of a Parquet file, 16 MiB of a CSV file; frames
are not copied where Arrow can share their memory.

CSV has no one form (csv_form.py) and no types. They are inferred from the first 16 MiB, with whole numbers taken as
floating-point; a value further down that does not fit widens its column to text, so that a stray "n/a" costs one column
its type, never the file.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from mlspan.columns import is_missing
from mlspan_processor.analysis.csv_form import Form, form_of
from mlspan_processor.analysis.errors import AnalysisError

BATCH_ROWS: Final = 50_000
CSV_BLOCK_BYTES: Final = 16 * 1024 * 1024
_MISFIT: Final = re.compile(r"In CSV column #(\d+)")
_PARQUET: Final = frozenset({".parquet", ".pq"})
_CSV: Final = frozenset({".csv", ".tsv"})
_JSON: Final = frozenset({".jsonl", ".ndjson", ".json"})


class Source(Protocol):
    """Rows with named, typed columns.

    Attributes:
        name: for people: the file's name or the argument's.
        schema: the columns' names and Arrow types.
        rows: how many, or None where only reading tells.
        roles: columns that the source itself gives a role ("prediction", "label", ...); empty for tables.
    """

    name: str
    schema: pa.Schema
    rows: int | None
    roles: Mapping[str, Any]

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Record batches of these columns, in the order of the rows."""


Readable = "str | PathLike[str] | Mapping[str, Any] | Any"


def open_source(data: Any, name: str, texts: Sequence[str] = ()) -> Source:
    """Open what holds rows.

    Args:
        data: a path, a frame, a table or a mapping of column names to values.
        name: what messages call it.
        texts: columns that a file without types (CSV) is to be read as text in.

    Raises:
        OSError: the file cannot be read.
        AnalysisError: it is of no known kind, damaged or empty.
    """
    if isinstance(data, str | PathLike):
        return _open_path(Path(data), texts)
    return _Table(_table(data, name), name)


def _open_path(path: Path, texts: Sequence[str]) -> Source:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if not path.exists():
        raise FileNotFoundError(f'there is no file "{path}"')
    try:
        if _PARQUET & set(suffixes):
            return _Parquet(path)
        if _CSV & set(suffixes):
            return _Csv(path, form_of(path), texts)
    except pa.ArrowException as error:
        raise AnalysisError(f'"{path}" cannot be read: {error}') from error
    if _JSON & set(suffixes):
        from mlspan_processor.analysis.otlp import open_otlp  # noqa: PLC0415  # protobuf is loaded for spans only

        return open_otlp(path)
    raise AnalysisError(f'"{path}" must be a .parquet, .csv, .tsv or (spans as OTLP) .jsonl file')


class _Parquet:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.roles: Mapping[str, Any] = {}
        self._path = path
        with parquet.ParquetFile(path) as file:
            self.schema, self.rows = file.schema_arrow, file.metadata.num_rows
        _once(self.schema.names, f'"{path}"')

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Record batches of these columns."""
        try:
            with parquet.ParquetFile(self._path) as file:
                yield from file.iter_batches(BATCH_ROWS, columns=list(columns))
        except pa.ArrowException as error:
            raise AnalysisError(f'"{self._path}" cannot be read: {error}') from error


class _Csv:
    """A CSV file; `schema` is widened until every value fits."""

    def __init__(self, path: Path, form: Form, texts: Sequence[str]) -> None:
        self.name = path.name
        self.roles: Mapping[str, Any] = {}
        self.rows: int | None = None
        self._path, self._form = path, form
        self._types: dict[str, Any] = {}
        with self._open({}) as reader:
            first = reader.schema
        self._names: list[str] = list(first.names)
        _once(self._names, f'"{path}"')
        for field in first:
            if pa.types.is_binary(field.type):
                raise AnalysisError(f'"{path}" cannot be read: column "{field.name}" is no UTF-8')
            if field.name in texts or pa.types.is_null(field.type):
                self._types[field.name] = pa.string()
        while (misfit := self._settle()) is not None:
            name = self._names[misfit]
            # Whole numbers stay so where they can: a double does not tell long ids apart.
            is_whole = name not in self._types and pa.types.is_integer(first.field(misfit).type)
            self._types[name] = pa.float64() if is_whole else pa.string()
        self.schema = pa.schema([(f.name, self._types.get(f.name, f.type)) for f in first])

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Record batches of these columns."""
        if not columns:
            return
        try:
            with self._open({"include_columns": list(columns)}) as reader:
                yield from reader
        except pa.ArrowException as error:
            raise AnalysisError(f'"{self._path}" cannot be read: {error}') from error

    def _settle(self) -> int | None:
        """Read all of it once: count the rows; the first column that holds what its type cannot, or None."""
        rows = 0
        try:
            with self._open({}) as reader:
                for batch in reader:
                    rows += batch.num_rows
        except pa.ArrowInvalid as error:
            found = _MISFIT.search(str(error))
            at = -1 if found is None else int(found[1])
            # Text takes every value but one that is no UTF-8: then the file cannot be read.
            if found is None or self._types.get(self._names[at]) == pa.string():
                raise
            return at
        self.rows = rows
        return None

    def _open(self, options: Mapping[str, Any]) -> Any:
        return csv.open_csv(
            self._path,
            csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
            csv.ParseOptions(delimiter=self._form.delimiter),
            csv.ConvertOptions(
                strings_can_be_null=True, column_types=self._types, decimal_point=self._form.decimal, **options
            ),
        )


class _Table:
    """A table in memory."""

    def __init__(self, table: Any, name: str, roles: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.schema, self.rows = table.schema, table.num_rows
        self.roles: Mapping[str, Any] = roles or {}
        self._columns = table

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Record batches of these columns."""
        yield from self._columns.select(list(columns)).to_batches(BATCH_ROWS)


TableSource = _Table


def _table(data: Any, name: str) -> Any:
    """Any frame as a pyarrow table; columns that Arrow has no type for become text."""
    module = type(data).__module__.partition(".")[0]
    if isinstance(data, pa.Table):
        table = data
    elif isinstance(data, pa.RecordBatch):
        table = pa.Table.from_batches([data])
    elif module == "pandas" and hasattr(data, "columns"):
        table = pa.table({str(label): _column(data.iloc[:, j]) for j, label in enumerate(data.columns)})
        _once([str(label) for label in data.columns], name)
    elif module == "polars" and hasattr(data, "collect"):
        table = data.collect().to_arrow()
    elif module == "polars" and hasattr(data, "to_arrow"):
        table = data.to_arrow()
    elif isinstance(data, Mapping):
        table = pa.table({str(key): _column(value) for key, value in data.items()})
    else:
        kind = f"{type(data).__module__}.{type(data).__qualname__}"
        raise AnalysisError(
            f"{name} is a {kind}; must be a path, a pandas or polars DataFrame, a pyarrow Table or a mapping of columns"
        )
    _once(table.schema.names, name)
    return table


def _once(names: Sequence[str], where: str) -> None:
    """Raise AnalysisError for a name that two columns have."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise AnalysisError(f'{where} names the column "{twice[0]}" twice')


def _column(values: Any) -> Any:
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        known = [None if is_missing(value) else str(value) for value in np.asarray(values, object)]
        return pa.array(known, pa.string())
