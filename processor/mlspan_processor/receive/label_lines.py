"""Labels as people send them: JSON lines, a JSON array or CSV in; checked rows and the bad lines out.

A bad line costs only itself. Columns: prediction_id and label are required, model and timestamp optional, others are
passed over. The label of a multilabel model is, in JSON, a list of the outputs that hold, 0 or 1 for each output in
order, or an object of output to 0 or 1; in CSV the names with ";" between them, and ";" alone where none holds. A
timestamp is RFC 3339 text, or Unix time in seconds (or nanoseconds, from 10^15 up).
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from mlspan_processor.outputs import Label

KEYS = ("prediction_id", "label", "model", "timestamp")
CSV_TYPES = frozenset({"text/csv", "application/csv"})
JSON_LINES_TYPES = frozenset({"application/x-ndjson", "application/jsonl", "application/x-jsonlines"})
_MAX_ID = 256
_MAX_LABEL = 1024
_NANOSECONDS_FROM = 10**15


@dataclass(frozen=True, slots=True)
class LabelLine:
    """One good line.

    Attributes:
        line: where it stood, from 1.
        prediction_id: as written.
        label: text for a class, a number for a value; of several outputs the names of those that hold, or whether each
            does.
        model: the model's name, or None.
        timestamp_ns: when the truth was known, Unix nanoseconds, or None.
    """

    line: int
    prediction_id: str
    label: Label
    model: str | None
    timestamp_ns: int | None


@dataclass(frozen=True, slots=True)
class BadLine:
    """One line that was left out, and why."""

    line: int
    reason: str


class LabelFormatError(ValueError):
    """The body as a whole cannot be read."""


def read_labels(body: bytes, content_type: str) -> tuple[list[LabelLine], list[BadLine]]:
    """Return the good and the bad lines; raise LabelFormatError if there are no lines at all to be found in
    it.

    JSON by its first byte: "[" is an array, anything else one object per line, or a single one over several lines.
    """
    good: list[LabelLine] = []
    bad: list[BadLine] = []
    rows = _csv(body) if content_type in CSV_TYPES else _json(body)
    for line, row in rows:
        try:
            good.append(_checked(line, row))
        except ValueError as error:
            bad.append(BadLine(line, str(error)))
    return good, bad


def _json(body: bytes) -> Iterator[tuple[int, Any]]:
    stripped = body.lstrip()
    if stripped.startswith(b"["):
        try:
            rows = orjson.loads(stripped)
        except orjson.JSONDecodeError as error:
            raise LabelFormatError(f"not a JSON array: {error}") from None
        yield from enumerate(rows, 1)
        return
    try:
        row = orjson.loads(stripped)
    except orjson.JSONDecodeError:
        pass  # more than one object, or none
    else:
        yield 1, row
        return
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, ValueError(f"not JSON: {error}")


def _csv(body: bytes) -> Iterator[tuple[int, Any]]:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelFormatError(f"not UTF-8: {error}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = reader.fieldnames or ()
    except csv.Error as error:
        raise LabelFormatError(f"not CSV, line 1: {error}") from None
    missing = [key for key in KEYS[:2] if key not in columns]
    if missing:
        raise LabelFormatError(
            f"the first line names the columns; it lacks {_quoted(missing)} (optional: {_quoted(KEYS[2:])})"
        )
    try:
        for row in reader:
            if None in row:  # DictReader's key for what is too many
                yield reader.line_num, ValueError(f"more fields than the {len(columns)} columns of the first line")
            else:
                yield reader.line_num, {key: value for key, value in row.items() if value not in {None, ""}}
    except csv.Error as error:
        raise LabelFormatError(f"not CSV, line {reader.line_num}: {error}") from None


def _checked(line: int, row: Any) -> LabelLine:
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, dict):
        raise ValueError("not an object with prediction_id and label")  # bad input, not a bug
    prediction_id = row.get("prediction_id")
    if isinstance(prediction_id, int) and not isinstance(prediction_id, bool):
        prediction_id = str(prediction_id)
    if prediction_id is None or prediction_id == "":
        raise ValueError("prediction_id is missing")
    if not isinstance(prediction_id, str):
        raise ValueError(f'prediction_id "{prediction_id}" is neither text nor a whole number')  # bad input, not a bug
    if len(prediction_id) > _MAX_ID:
        raise ValueError(f"prediction_id is longer than {_MAX_ID} characters")
    model = row.get("model")
    if model is not None and not isinstance(model, str):
        raise ValueError(f'model "{model}" is no text')
    return LabelLine(line, prediction_id, _label(row.get("label")), model or None, _timestamp(row.get("timestamp")))


def _label(value: Any) -> Label:
    if isinstance(value, list | dict):
        return _several(value)
    if value is None or value == "":
        raise ValueError("label is missing")
    if isinstance(value, bool):
        return str(value)  # "True" and "False", as the classes of a model are written
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f'label "{value}" is not finite')
        return float(value)
    if not isinstance(value, str):
        raise ValueError("label is neither text, a number, a list nor an object")  # bad input, not a bug
    if len(value) > _MAX_LABEL:
        raise ValueError(f"label is longer than {_MAX_LABEL} characters")
    return value


def _several(value: list[Any] | dict[str, Any]) -> Label:
    """The truth of several outputs: names of those that hold, 0 or 1 for each in order, or by name."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    truths = value if isinstance(value, list) else list(value.values())
    for one in truths:
        if not isinstance(one, bool | int | float) or one not in {0, 1}:
            raise ValueError(f'label holds "{one}"; of several outputs it must hold 0 and 1, or names')
    if isinstance(value, list):
        if len(value) < 2:
            raise ValueError("label is a list of one number; of several outputs it must hold 0 or 1 for each")
        return tuple(map(bool, value))
    return tuple(name for name, holds in value.items() if holds)


def _timestamp(value: Any) -> int | None:
    if value is None or value == "":
        return None
    moment = _nanoseconds(value)
    if moment is None:
        raise ValueError(f'timestamp "{value}" is neither RFC 3339 nor Unix seconds')
    if not 0 < moment < 1 << 63:
        raise ValueError(f'timestamp "{value}" lies before 1970 or after 2262; Unix time is in seconds or nanoseconds')
    return int(moment)


def _nanoseconds(value: Any) -> Decimal | None:
    """Return Unix nanoseconds; None for what is no time."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        try:
            when = datetime.fromisoformat(str(value))
        except ValueError:
            return None
        number = Decimal((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    if not number.is_finite():
        return None
    return number if number >= _NANOSECONDS_FROM else number * 10**9


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
