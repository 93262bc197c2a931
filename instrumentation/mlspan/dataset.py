"""Stage 1, which data it is: whether a later score or cross-validation is on the rows that a model was fitted on.

Reads an opened input, gives its size and two digests: of its column names, and of at most 256 rows at evenly spaced
positions, at most 1,024 columns of them. The same for the same values in another object or container; rows in another
order, or a part of them, are other data. Guarantee: the input is neither changed nor kept, and the digests stay in this
process. Memory: some 200 bytes each.
"""

from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np

from mlspan.capture import read_cells
from mlspan.columns import F4
from mlspan.config import Settings
from mlspan.inputs import Source
from mlspan.selection import Selector

MAX_ROWS: Final = 256
DIGEST_BYTES: Final = 16


class Dataset(NamedTuple):
    """What data are known again by.

    Attributes:
        rows: their number.
        columns: theirs.
        names: digest of the columns' names; None: they have none.
        content: digest of some rows' values.
    """

    rows: int
    columns: int
    names: bytes | None
    content: bytes

    def is_same(self, other: "Dataset") -> bool:
        """Whether these are the same rows, under whatever names."""
        return (self.rows, self.columns, self.content) == (other.rows, other.columns, other.content)

    def has_columns_of(self, other: "Dataset") -> bool:
        """Whether the columns are the same, as far as they have names."""
        is_named = self.names is not None and other.names is not None
        return self.columns == other.columns and (not is_named or self.names == other.names or self.is_same(other))


def dataset_of(source: Source) -> Dataset:
    """What this input is known again by.

    Raises:
        UnsupportedInputError: the input turns out to be of no supported kind.
    """
    # A new selector each time: one that has seen other data reads columns of Python objects in another way.
    selector = Selector(Settings())
    selection = selector.select(source.names, source.columns)
    rows = np.linspace(0, max(source.rows - 1, 0), min(source.rows, MAX_ROWS)).astype(np.intp)
    found = read_cells(source, selection, selector, rows) if len(rows) else None
    content = b""
    if found is not None:
        cells = np.array(found[1]).view(F4)
        cells[np.isnan(cells)] = np.nan  # there are many, and which one says only where it comes from
        content = cells.tobytes()
    names = None if source.names is None else _digest("\0".join(source.names).encode("utf-8", "replace"))
    return Dataset(source.rows, source.columns, names, _digest(content))


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()
