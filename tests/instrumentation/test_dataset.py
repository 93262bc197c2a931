"""By what data are known again: the values of some rows, whatever object holds them."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse

from mlspan.dataset import Dataset, dataset_of
from mlspan.inputs import open_input
from mlspan.inputs.arrays import ArraySource

NUMBERS = np.random.default_rng(0).integers(-3, 4, (1_000, 3)).astype(np.float64)
MIXED = pd.DataFrame({"a": NUMBERS[:, 0], "b": np.where(NUMBERS[:, 1] > 0, "x", "y"), "c": NUMBERS[:, 2] > 0})
MIXED.loc[::7, ["a", "b"]] = None
TEXTS = ["a" * at for at in range(20)]


def _of(X: object) -> Dataset:
    return dataset_of(open_input(X))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NUMBERS, NUMBERS.copy()),
        (NUMBERS, np.asfortranarray(NUMBERS.astype(np.float32))),
        (NUMBERS, NUMBERS.tolist()),
        (NUMBERS, pd.DataFrame(NUMBERS)),
        (NUMBERS, scipy.sparse.csr_matrix(NUMBERS)),
        (MIXED, MIXED[list(MIXED.columns)]),
        (MIXED, MIXED.astype({"b": "category"})),
        (MIXED, pl.from_pandas(MIXED)),
        (TEXTS, pd.Series(TEXTS, name="text")),
    ],
    ids=["copy", "float32", "lists", "frame", "sparse", "columns", "category", "polars", "texts"],
)
def test_same_values(one: Any, other: Any) -> None:
    """The same values are the same data in another object, type or container."""
    assert _of(one).is_same(_of(other))
    assert _of(one).has_columns_of(_of(other))


@pytest.mark.parametrize(
    "other",
    [NUMBERS[:999], NUMBERS[::-1], NUMBERS[:, :2], NUMBERS + 1, np.where(np.arange(3) == 2, 1.0, NUMBERS)],
    ids=["part", "order", "columns", "values", "one column"],
)
def test_other_values(other: Any) -> None:
    """A part, another order, and other values are other data."""
    assert not _of(NUMBERS).is_same(_of(other))


def test_columns() -> None:
    """Columns are the same by number, and by name where both have names."""
    frame = pd.DataFrame(NUMBERS, columns=list("abc"))
    assert _of(frame).has_columns_of(_of(NUMBERS[:10]))
    assert _of(frame).has_columns_of(_of(frame[:10]))
    assert not _of(frame).has_columns_of(_of(frame[:10].rename(columns={"a": "z"})))
    assert not _of(frame).has_columns_of(_of(NUMBERS[:10, :2]))


def test_what_was_seen_before_does_not_count() -> None:
    """Columns of Python objects are read alike whatever data with the same columns came before."""
    one = pd.DataFrame({"a": [1, 2, 3]}, dtype=object)
    before = _of(one)
    _of(pd.DataFrame({"a": ["x", 2, 3]}, dtype=object))
    assert _of(one) == before


def test_few_rows_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of data of any size the same 256 rows are read; no rows are no harm."""
    asked: list[np.ndarray] = []
    original = ArraySource.read

    def read(self: ArraySource, indices: Any, positions: Any, width: int) -> Any:
        asked.append(indices)
        return original(self, indices, positions, width)

    monkeypatch.setattr(ArraySource, "read", read)
    for rows in (100_000, 257, 256, 1, 0):
        _of(np.zeros((rows, 2)))
    assert [len(rows) for rows in asked] == [256, 256, 256, 1]
    assert [rows[-1] for rows in asked] == [99_999, 256, 255, 0]
    assert all(np.all(np.diff(rows) > 0) for rows in asked)
