"""Batch, part 3b: which of several outputs hold in each row (multilabel).

In: a column of 0 and 1 (or booleans) for each output, or one column of lists with the names of those that hold. Out:
the outputs' names, and (n_rows, n_outputs) of 0 and 1. Memory: 8 bytes a row and output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlspan_processor.analysis.errors import AnalysisError
from mlspan_processor.analysis.raw import Raw, raw
from mlspan_processor.label_texts import class_texts

_INDICATORS: Final = {"0": 0.0, "1": 1.0}


@dataclass(slots=True, eq=False)
class Indicators:
    """A column of 0 and 1 for each output; `by_output` in the order in which they were named."""

    by_output: Mapping[str, Raw]

    def names(self) -> tuple[str, ...]:
        """The outputs."""
        return tuple(self.by_output)

    def values(self, outputs: Sequence[str], what: str) -> NDArray[np.float64]:
        """(n_rows, n_outputs) of 0 and 1, NaN where missing.

        Raises:
            AnalysisError: an output has no column, or a column holds something else.
        """
        lacking = [name for name in outputs if name not in self.by_output]
        if lacking:
            raise AnalysisError(f'--{what} is not given for the output "{lacking[0]}": name a column for each output')
        return np.column_stack([_indicators(self.by_output[name], what, name) for name in outputs])


@dataclass(slots=True, eq=False)
class Lists:
    """One column of lists.

    Attributes:
        rows: (n_values,) the row of each listed name; `codes` (n_values,) which of `texts` it is.
        missing: (n_rows,) rows without a list. An empty list is a row without any output.
    """

    rows: NDArray[np.intp]
    codes: NDArray[np.intp]
    texts: list[str]
    missing: NDArray[np.bool_]

    def names(self) -> tuple[str, ...]:
        """The outputs, sorted."""
        return tuple(sorted(self.texts))

    def values(self, outputs: Sequence[str], what: str) -> NDArray[np.float64]:
        """(n_rows, n_outputs) of 0 and 1, NaN rows where missing.

        Raises:
            AnalysisError: a list names another output.
        """
        places = {name: i for i, name in enumerate(outputs)}
        strange = [text for text in self.texts if text not in places]
        if strange:
            known = ", ".join(f'"{name}"' for name in outputs)
            raise AnalysisError(f'a {what} names the output "{strange[0]}"; must be some of {known}')
        found = np.zeros((len(self.missing), len(outputs)))
        found[self.rows, np.array([places[text] for text in self.texts], np.intp)[self.codes]] = 1.0
        found[self.missing] = np.nan
        return found


def lists_of(column: Any, name: str) -> Lists:
    """A column of lists of names.

    Raises:
        AnalysisError: the lists hold no texts and no numbers.
    """
    kind = column.type.value_type
    if pa.types.is_nested(kind) or pa.types.is_floating(kind):
        raise AnalysisError(f'column "{name}" holds {column.type}; must hold lists of the outputs\' names')
    codes, texts = raw(pc.list_flatten(column), name).coded()
    if texts and not pa.types.is_string(kind) and set(texts) <= {"0", "1", "False", "True"}:
        raise AnalysisError(
            f'column "{name}" holds lists of 0 and 1; must hold lists of the names of the outputs that hold, or give '
            "0 and 1 as a column for each output (NAME=COL)"
        )
    rows = np.asarray(pc.list_parent_indices(column).to_numpy(), np.intp)
    used = codes >= 0
    return Lists(rows[used], codes[used], texts, np.asarray(pc.is_null(column).to_numpy(), bool))


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is one of lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _indicators(column: Raw, what: str, output: str) -> NDArray[np.float64]:
    codes, texts = column.coded()
    table = []
    for text in texts:
        value = next((_INDICATORS[one] for one in class_texts(text) if one in _INDICATORS), None)
        if value is None:
            hint = "; a probability is --probability NAME=COL" if column.numbers is not None else ""
            raise AnalysisError(
                f'the column of the {what} of output "{output}" holds "{text}"; must hold 0 and 1, or booleans{hint}'
            )
        table.append(value)
    return np.array([*table, np.nan])[codes]
