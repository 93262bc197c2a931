"""Stage 2, capture: documents, as a text pipeline takes them (a one-dimensional list or array of texts).

A document is private, and the hash of a whole document says nothing about a population. What is captured is its
length in characters (bytes for bytes), a numeric column named "x0.length", or "<name>.length" where the series has a
name.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.inputs.base import Block, Indices

_PEEKED: Final = 16


class TextSource:
    """n_rows documents; one column, their lengths."""

    __slots__ = ("_texts", "columns", "names", "python_columns", "rows")

    def __init__(self, texts: Sequence[Any] | NDArray[Any], name: str = "x0") -> None:
        self._texts = texts
        self.rows = len(texts)
        self.columns = 1
        self.names = (f"{name}.length",)
        self.python_columns = 1

    def read(self, indices: Indices | None, _: Indices | None, width: int) -> Iterable[Block]:
        """The lengths; NaN for what is no text."""
        texts = self._texts
        sampled = texts if indices is None else [texts[at] for at in indices.tolist()]
        lengths = [len(text) if isinstance(text, (str, bytes)) else np.nan for text in sampled]
        return [Block(0, np.array(lengths, np.float64))] if width else []


def looks_like_text(values: Sequence[Any] | NDArray[Any]) -> bool:
    """Whether a one-dimensional input holds documents: by dtype, else by its first values."""
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        return values.dtype.kind in "UST"
    return any(isinstance(value, (str, bytes)) for value in values[:_PEEKED])
