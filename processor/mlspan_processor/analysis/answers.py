"""Batch, part 3: labels, predictions, probabilities, times, ids and segments of a whole file.

In: a Source and its Roles. Out: an Answers: the role columns of every row, features aside. Memory: 8 bytes a row and
column of numbers, 4 of texts, and the distinct texts once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlspan_processor.analysis.encode import positions
from mlspan_processor.analysis.errors import AnalysisError
from mlspan_processor.analysis.indicators import Indicators, is_list, lists_of
from mlspan_processor.analysis.raw import Raw, raw
from mlspan_processor.analysis.roles import Roles
from mlspan_processor.analysis.source import Source

Progress = Callable[[int], None]
"""Called with the rows read since the last call."""
Probabilities = NDArray[np.floating[Any]]
"""float32 where a file has them as that, else float64."""


class Outputs(Protocol):
    """Which of several outputs hold in each row (outputs.py)."""

    def names(self) -> tuple[str, ...]:
        """The outputs."""

    def values(self, outputs: Sequence[str], what: str) -> NDArray[np.float64]:
        """(n_rows, n_outputs) of 0 and 1, NaN where missing."""


@dataclass(slots=True, eq=False)
class Answers:
    """The role columns of a file.

    Attributes:
        rows: of the file.
        label, prediction, version: or None.
        labels, predictions: of several outputs, or None.
        probabilities: (n_rows, n_columns), or None; `classes` the class that each column was named for.
        times: (n_rows,) int64 nanoseconds since the epoch, `NO_TIME` where there is none; or None.
        ids: (n_rows,) int64, equal for equal ids, -1 where missing; or None.
        segments: by name.
        weights: (n_rows,) rows that each stands for; None for 1.
    """

    rows: int
    label: Raw | None = None
    prediction: Raw | None = None
    version: Raw | None = None
    labels: Outputs | None = None
    predictions: Outputs | None = None
    probabilities: Probabilities | None = None
    classes: tuple[str, ...] = ()
    times: NDArray[np.int64] | None = None
    ids: NDArray[np.int64] | None = None
    id_texts: Any = None
    segments: dict[str, Raw] = field(default_factory=dict)
    weights: NDArray[np.float64] | None = None


NO_TIME: Final = np.iinfo(np.int64).min
_LATEST: Final = 9_223_000_000_000_000_000
"""Nanoseconds since the epoch, either way: in April 2262."""
_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}


def read_answers(source: Source, roles: Roles, progress: Progress | None = None) -> Answers:
    """Read the role columns.

    Raises:
        AnalysisError: a column of probabilities or of times holds something else, or the file has no rows.
    """
    weight = source.roles.get("weight", "") if source.roles else ""
    columns = [*roles.answers(), *([weight] if weight else [])]
    parts: dict[str, list[Any]] = {name: [] for name in columns}
    rows = 0
    # A table is known to have rows without a column being read.
    for batch in source.batches(columns) if columns else ():
        rows += batch.num_rows
        for name in columns:
            parts[name].append(batch.column(name))
        if progress is not None:
            progress(batch.num_rows)
    if not columns:
        rows = source.rows or 0
    if not rows:
        raise AnalysisError(f'"{source.name}" has no rows')
    whole = {name: pa.chunked_array(chunks) for name, chunks in parts.items()}
    answers = Answers(rows, classes=tuple(name for name, _ in roles.probabilities))
    for role in ("label", "prediction", "version"):
        if name := getattr(roles, role):
            if role != "version" and is_list(whole[name].type):
                setattr(answers, f"{role}s", lists_of(whole[name], name))
            else:
                setattr(answers, role, raw(whole[name], name))
    for role in ("labels", "predictions"):
        if pairs := getattr(roles, role):
            setattr(answers, role, Indicators({output: raw(whole[name], name) for output, name in pairs}))
    for name in roles.segments:
        answers.segments[name] = raw(whole[name], name)
    if roles.probabilities:
        answers.probabilities = np.column_stack([_probabilities(whole[name], name) for _, name in roles.probabilities])
    if roles.time:
        answers.times = times_of(whole[roles.time], roles.time)
    if roles.id:
        answers.ids, answers.id_texts = _ids(whole[roles.id])
    if weight:
        answers.weights = np.asarray(whole[weight].to_numpy(), np.float64)
    return answers


def times_of(column: Any, name: str) -> NDArray[np.int64]:
    """(n_rows,) nanoseconds since the epoch, NO_TIME where missing.

    Dates and times without a zone are taken as UTC; texts are ISO 8601; numbers are seconds, or milli-, micro- or
    nanoseconds where the median is too large for the unit before (after the year 5138). Times beyond what 64 bits of
    nanoseconds hold (9999-12-31, which stands for "never") count as missing.
    """
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return _text_times(column, name)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _stamps(column)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        values = np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), np.float64)
        finite = np.isfinite(values)
        size = float(np.median(np.abs(values[finite]))) if finite.any() else 0.0
        scale = next(unit for limit, unit in ((1e11, 1e9), (1e14, 1e6), (1e17, 1e3), (np.inf, 1.0)) if size < limit)
        if pa.types.is_integer(kind) and scale == 1.0:
            return np.asarray(pc.fill_null(pc.cast(column, pa.int64()), int(NO_TIME)).to_numpy(), np.int64)
        finite &= np.abs(values) * scale < _LATEST
        result = np.full(len(values), NO_TIME)
        result[finite] = np.round(values[finite] * scale).astype(np.int64)
        return result
    raise AnalysisError(f'--time "{name}" holds {kind}; must hold times, dates, ISO 8601 texts or Unix seconds')


def _stamps(column: Any) -> NDArray[np.int64]:
    timed = pa.types.is_timestamp(column.type)
    whole = pc.cast(column if timed else pc.cast(column, pa.date64()), pa.int64())
    counts, factor = pc.fill_null(whole, int(NO_TIME)).to_numpy(), _NS[column.type.unit if timed else "ms"]
    return np.where(np.abs(counts + 1) <= _LATEST // factor, counts * factor, NO_TIME)


def _text_times(column: Any, name: str) -> NDArray[np.int64]:
    from datetime import UTC, datetime  # noqa: PLC0415  # rare

    found = raw(column, name)
    assert found.codes is not None
    stamps = np.full(len(found.texts) + 1, NO_TIME)
    unreadable = []
    for i, text in enumerate(found.texts):
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            unreadable.append(text)
            continue
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        whole, part = divmod((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds(), 1)
        stamp = int(whole) * 1_000_000_000 + round(part * 1e6) * 1000
        stamps[i] = stamp if abs(stamp) <= _LATEST else NO_TIME
    if len(unreadable) > len(found.texts) / 2:
        raise AnalysisError(f'--time "{name}": "{unreadable[0]}" is no ISO 8601 time')
    return stamps[found.codes]


def _probabilities(column: Any, name: str) -> Probabilities:
    found = raw(column, name)
    values = found.values()
    if found.numbers is None and np.isnan(values).mean() > found.missing().mean() + 0.5:
        raise AnalysisError(f'--probability "{name}" holds texts; must hold numbers')
    short = pa.types.is_float32(column.type) or pa.types.is_float16(column.type)
    return values.astype(np.float32) if short else values


def _ids(column: Any) -> tuple[NDArray[np.int64], Any]:
    """(n_rows,) equal numbers for equal ids, -1 where missing; and the id of each number as an Arrow array."""
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    encoded = encoded.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    return positions(encoded), encoded.dictionary
