"""Batch, part 6: feature columns as the cells that the application's capture would send.

In: Arrow columns of either file. Out: (n_features, n_rows) uint32, as in a Sample. A feature has the type that it has
in the reference; the other file's values are taken as that where they can be: texts that read as numbers for a numeric
feature. Category codes are those of the keyed hash, with their texts kept for people. Memory: the distinct texts, at
most 10,000 remembered of one column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlspan.columns import CATEGORICAL, NUMERIC, TextCodes, seconds, to_float32
from mlspan_processor.analysis.roles import CODES, is_text, type_of
from mlspan_processor.analysis.source import Source

MAX_TEXTS: Final = 10_000
_PARSED: Final = 0.5
"""Share of a text column's values that must read as numbers for it to be taken as numbers."""

_BEYOND: Final = "undecidable, because no number of the reference is within ±3.4e38, which is all that float32 holds"


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature, and why it cannot be compared ("" where it can).

    Attributes:
        name, type, reason: see above.
        lost: whether it can be compared no more, since the current file's column is gone or another.
    """

    name: str
    type: str
    reason: str = ""
    lost: bool = False


def comparable(names: Sequence[str], reference: Source, current: Source) -> list[Feature]:
    """What each feature is, and whether both files have it in comparable form."""
    return [_feature(name, reference, current) for name in names]


class Encoder:
    """Turns columns into cells.

    Attributes:
        texts: readable categories by feature name and code.
    """

    def __init__(self, columns: Sequence[Feature], hash_key: bytes) -> None:
        self.features = tuple(columns)
        self.names = tuple(one.name for one in columns)
        self.types = tuple(one.type for one in columns)
        self.texts: dict[str, dict[int, str]] = {one.name: {} for one in columns if one.type == CATEGORICAL}
        self._codes = TextCodes(hash_key)

    def encode(self, batch: Any, rows: NDArray[np.intp] | None) -> NDArray[np.uint32]:
        """(n_features, n_rows) cells of a batch's rows; None for all."""
        at = None if rows is None else pa.array(rows)
        cells = np.empty((len(self.features), batch.num_rows if rows is None else len(rows)), np.uint32)
        for j, feature in enumerate(self.features):
            column = batch.column(feature.name)
            coded = CODES in (batch.schema.field(feature.name).metadata or {})
            cells[j] = self._column(feature, column if at is None else column.take(at), coded)
        return cells

    def _column(self, feature: Feature, column: Any, coded: bool) -> NDArray[np.uint32]:
        if feature.type == CATEGORICAL:
            return column.to_numpy(zero_copy_only=False) if coded else self._categories(feature.name, column)
        return numbers(column).view(np.uint32)

    def _categories(self, name: str, column: Any) -> NDArray[np.uint32]:
        places, labels = _encoded(column)
        remembered = self.texts[name]
        table = np.zeros(len(labels) + 1, np.uint32)  # position -1 is missing
        for i, label in enumerate(labels):
            code = table[i] = self._codes[label]
            if code and len(remembered) < MAX_TEXTS:
                remembered.setdefault(int(code), str(label))
        return np.asarray(table[places])


def in_range(features: Sequence[Feature], names: Sequence[str], cells: NDArray[np.uint32]) -> list[Feature]:
    """The features; those of which no number of the reference is one that float32 holds cannot be compared.

    Args:
        features: all of them.
        names: of those that were read.
        cells: (n_names, n_rows) of the reference.
    """
    beyond = set()
    for feature in features:
        if not feature.reason and feature.type == NUMERIC:
            values = cells[names.index(feature.name)].view(np.float32)
            if np.isinf(values).any() and not np.isfinite(values).any():
                beyond.add(feature.name)
    return [replace(one, reason=_BEYOND) if one.name in beyond else one for one in features]


def numbers(column: Any) -> NDArray[np.float32]:
    """A column as float32, NaN where missing; texts that are no number are missing."""
    kind = column.type
    if is_text(kind):
        places, labels = _encoded(column)
        return np.append([_number(label) for label in labels], np.nan).astype(np.float32)[places]
    if pa.types.is_temporal(kind):
        return seconds(np.asarray(column.to_numpy(zero_copy_only=False)))
    if pa.types.is_boolean(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column = pc.cast(column, pa.float64())
    return to_float32(np.asarray(column.to_numpy(zero_copy_only=False)))


def schema_texts(source: Source) -> list[str]:
    """The names of a source's categorical columns: what a file without types is to read as text."""
    return [field.name for field in source.schema if type_of(field) == CATEGORICAL]


def _feature(name: str, reference: Source, current: Source) -> Feature:
    before = reference.schema.field(name)
    kind = type_of(before)
    if kind is None:
        return Feature(name, NUMERIC, f"undecidable, because {before.type} values are not captured")
    if name not in current.schema.names:
        return Feature(name, kind, f"undecidable, because {current.name} lacks the column", True)
    now = current.schema.field(name)
    other = type_of(now)
    if other is None:
        return Feature(name, kind, f"undecidable, because the column holds {now.type} now", True)
    if kind == CATEGORICAL and other != CATEGORICAL and not pa.types.is_null(now.type):
        return Feature(name, kind, f"undecidable, because the column was {before.type} and is {now.type} now", True)
    if kind != CATEGORICAL and other == CATEGORICAL and not _reads_as_numbers(current, name):
        return Feature(name, kind, f"undecidable, because the column was {before.type} and is text now", True)
    return Feature(name, kind)


def _reads_as_numbers(source: Source, name: str) -> bool:
    """Whether at least half of the first texts of a column are numbers."""
    for batch in source.batches([name]):
        column = batch.column(name)
        known = len(column) - column.null_count
        if known and CODES not in (batch.schema.field(name).metadata or {}):
            return bool(np.isfinite(numbers(column)).sum() >= _PARSED * known)
    return False


def _encoded(column: Any) -> tuple[NDArray[np.int64], list[Any]]:
    """(n_rows,) positions, -1 where missing, and the distinct values."""
    encoded = column if str(column.type).startswith("dictionary") else column.dictionary_encode()
    return positions(encoded), encoded.dictionary.to_pylist()


def positions(encoded: Any) -> NDArray[np.int64]:
    """(n_rows,) places in a dictionary-encoded array's dictionary, -1 where missing."""
    # polars counts them without a sign, which takes no -1.
    places: NDArray[np.int64] = pc.cast(encoded.indices, pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return places


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


Texts = Mapping[str, Mapping[int, str]]
