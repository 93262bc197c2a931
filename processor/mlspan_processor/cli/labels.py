"""``mlspan labels FILE``: true outcomes from a table to a running processor."""

import argparse
import csv
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mlspan_processor.cli.client import Client, ClientError
from mlspan_processor.cli.console import fail, say

_SHOWN_REJECTIONS = 10
_SUFFIXES = {".csv", ".jsonl", ".ndjson", ".json", ".parquet"}
Row = Mapping[str, Any]


class TableError(Exception):
    """The file cannot be read, or lacks a column."""


def labels(options: argparse.Namespace) -> int:
    """Send every row that has a label; 1 if any was rejected or could not be sent."""
    columns = {
        "prediction_id": options.id_column,
        "label": options.label_column,
        "model": options.model_column,
        "timestamp": options.timestamp_column,
    }
    accepted = waiting = not_captured = skipped = 0
    rejected: list[str] = []
    rejected_count = first = 0
    progress = Progress(
        SpinnerColumn(),
        TextColumn("sending labels"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=options.quiet or not sys.stderr.isatty(),
        transient=True,
    )
    try:
        client = Client(options.endpoint)
        rows = read_rows(Path(options.file), required=(options.id_column, options.label_column))
        with progress:
            task = progress.add_task("labels", total=None)
            while batch := list(islice(rows, options.batch_size)):
                lines = {
                    number: line
                    for number, row in enumerate(batch, first + 1)
                    if (line := _line(row, columns, options.model)) is not None
                }
                skipped += len(batch) - len(lines)
                first += len(batch)
                progress.update(task, advance=len(batch))
                if not lines:
                    continue
                body = b"\n".join(orjson.dumps(line, default=str) for line in lines.values())
                answer = client.post("/v1/labels", body, "application/x-ndjson")
                accepted += answer["accepted"]
                waiting += answer["waiting"]
                not_captured += answer.get("not_captured", 0)  # a processor of an older version does not say
                rejected_count += answer["rejected_count"]
                numbers = list(lines)
                rejected += [f"row {numbers[one['line'] - 1]}: {one['reason']}" for one in answer["rejected"]]
                del rejected[_SHOWN_REJECTIONS:]
    except (ClientError, TableError) as error:
        if accepted:
            sys.stderr.write(f"mlspan: {accepted} labels were sent before this happened\n")
        return fail(str(error))
    parts = [f"{accepted:,} labels accepted"]
    if waiting:
        parts.append(f"{waiting:,} of them wait for their prediction")
    if not_captured:
        parts.append(f"{not_captured:,} are for rows that were not captured")
    if skipped:
        parts.append(f"{skipped:,} rows have no label yet")
    if rejected_count:
        parts.append(f"{rejected_count:,} rejected")
    say("; ".join(parts))
    for reason in rejected:
        sys.stderr.write(f"  {reason}\n")
    if rejected_count > len(rejected):
        sys.stderr.write(f"  … and {rejected_count - len(rejected):,} more\n")
    return 1 if rejected_count else 0


def read_rows(path: Path, required: Iterable[str]) -> Iterator[Row]:
    """Return the table's rows by column name; raise TableError, also while iterating."""
    if path.suffix not in _SUFFIXES:
        raise TableError(f'"{path}" has the suffix "{path.suffix}"; valid are {", ".join(sorted(_SUFFIXES))}')
    if not path.is_file():
        raise TableError(f'there is no file "{path}"')
    readers = {".csv": _csv, ".parquet": _parquet, ".json": _json_array}
    rows = readers.get(path.suffix, _json_lines)(path)
    return _with_columns(rows, path, tuple(required))


def _with_columns(rows: Iterator[Row], path: Path, required: tuple[str, ...]) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        if number == 1:
            missing = [name for name in required if name not in row]
            if missing:
                has = ", ".join(f'"{name}"' for name in row)
                raise TableError(f'"{path}" has no column "{missing[0]}"; it has {has}')
        yield row


def _csv(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    except (csv.Error, UnicodeDecodeError) as error:
        raise TableError(f'"{path}" is not CSV: {error}') from None


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(line, f'"{path}", line {number}')


def _object(text: bytes, where: str) -> Row:
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise TableError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise TableError(f"{where}: not an object")
    return row


def _json_array(path: Path) -> Iterator[Row]:
    try:
        rows = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise TableError(f'"{path}" is not JSON: {error}') from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TableError(f'"{path}" is not an array of objects; one object per line is a .jsonl file')
    yield from rows


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415  # heavy, and only for this format

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(10_000):
                yield from batch.to_pylist()
    except (ArrowInvalid, OSError) as error:
        raise TableError(f'"{path}" is not Parquet: {error}') from None


def _line(row: Row, columns: Mapping[str, str], model: str | None) -> dict[str, Any] | None:
    """Return the JSON object of a row; None when it has no label."""
    line = {key: _plain(row[name]) for key, name in columns.items() if row.get(name) is not None and row[name] != ""}
    if isinstance(line.get("label"), float) and math.isnan(line["label"]):
        del line["label"]
    if "label" not in line:
        return None
    if model:
        line["model"] = model
    return line


def _plain(value: Any) -> Any:
    """Turn what Parquet holds into what JSON can say."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, time | timedelta):
        return str(value)
    return float(value) if isinstance(value, Decimal) else value
