"""Batch, part 3a: one role column as numbers or as codes of texts.

In: an Arrow column of any plain type. Out: a Raw. Memory: 8 bytes a row of numbers, 4 of texts, and the distinct
texts once.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlspan.columns import text_of
from mlspan_processor.analysis.encode import positions
from mlspan_processor.analysis.errors import AnalysisError

MAX_DISTINCT: Final = 5_000_000
"""Different texts of one role column."""


@dataclass(slots=True, eq=False)
class Raw:
    """One role column.

    Attributes:
        numbers: (n_rows,) float64, NaN where missing; None for texts and booleans.
        codes: (n_rows,) int32 indices into `texts`, -1 where missing; None for numbers.
        texts: the distinct values.
        whole: whether the column's type is a whole number's; `truth` whether it is boolean.
    """

    numbers: NDArray[np.float64] | None
    codes: NDArray[np.int32] | None
    texts: list[str] = field(default_factory=list)
    whole: bool = False
    truth: bool = False

    def __len__(self) -> int:
        return len(self.missing())

    def missing(self) -> NDArray[np.bool_]:
        """(n_rows,) where there is no value."""
        if self.numbers is not None:
            return np.isnan(self.numbers)
        assert self.codes is not None
        return np.asarray(self.codes < 0)

    def distinct(self, most: int = 0) -> list[str]:
        """The values as texts, numbers by size and texts by code point; all of them, or at most `most` numbers."""
        if self.numbers is None:
            assert self.codes is not None
            used = np.unique(self.codes[self.codes >= 0])
            return sorted(self.texts[i] for i in used.tolist())
        values = np.unique(self.numbers[np.isfinite(self.numbers)])
        return [number_text(value) for value in (values[:most] if most else values).tolist()]

    def coded(self) -> tuple[NDArray[np.intp], list[str]]:
        """(n_rows,) indices into the distinct texts, -1 where missing; and these texts, sorted as `distinct`."""
        if self.numbers is None:
            assert self.codes is not None
            order = sorted(range(len(self.texts)), key=self.texts.__getitem__)
            place = np.empty(len(order) + 1, np.intp)
            place[order] = np.arange(len(order))
            place[-1] = -1
            return place[self.codes], [self.texts[i] for i in order]
        finite = np.isfinite(self.numbers)
        values, which = np.unique(self.numbers[finite], return_inverse=True)
        codes = np.full(len(self.numbers), -1, np.intp)
        codes[finite] = which
        return codes, [number_text(value) for value in values.tolist()]

    def values(self) -> NDArray[np.float64]:
        """(n_rows,) numbers; texts that are no number are NaN."""
        if self.numbers is not None:
            return self.numbers
        assert self.codes is not None
        table = np.array([*map(_number, self.texts), np.nan])
        return np.asarray(table[self.codes])


def raw(column: Any, name: str) -> Raw:
    """A role column, by its type."""
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        numbers = pc.cast(column, pa.float64(), safe=False).to_numpy()
        return Raw(np.asarray(numbers, np.float64), None, whole=pa.types.is_integer(kind))
    if pa.types.is_null(kind):
        return Raw(np.full(len(column), np.nan), None)
    if pa.types.is_nested(kind):
        raise AnalysisError(f'column "{name}" holds {kind}; must hold numbers, texts or booleans')
    truth = pa.types.is_boolean(kind)
    encoded = column if pa.types.is_dictionary(kind) else pc.dictionary_encode(column)
    encoded = encoded.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # no rows, or several where they could not be joined
        encoded = pa.concat_arrays(encoded.chunks)
    texts = [text_of(value) for value in encoded.dictionary.to_pylist()]
    if len(texts) > MAX_DISTINCT:
        raise AnalysisError(f'column "{name}" holds more than {MAX_DISTINCT:,} different values')
    codes = positions(encoded)
    # Texts that differ as values may read alike: 1 and "1" of a column of objects.
    known: dict[str, int] = {}
    place = np.array([known.setdefault(text, len(known)) for text in texts] + [-1], np.int32)
    return Raw(None, place[codes], list(known), truth=truth)


def number_text(value: float) -> str:
    """A number as a class: whole ones without a point."""
    return str(int(value)) if value == int(value) else str(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
