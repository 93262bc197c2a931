"""Sampled rows of polars and Arrow tables: the same however they are read."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mlspan.capture import read_cells
from mlspan.config import Settings
from mlspan.inputs import open_input
from mlspan.selection import selector_of

PARTS = pl.DataFrame(
    {
        "float": np.linspace(0, 1, 500),
        "int": np.arange(500, dtype=np.int16),
        "time": pl.Series(np.arange(500)).cast(pl.Datetime),
        "flag": [at % 3 == 0 for at in range(500)],
        "text": [f"kind {at % 7}" for at in range(500)],
    }
)
GAPS = PARTS.with_columns(pl.when(pl.col("int") % 5 != 0).then(pl.all())).to_arrow()


@pytest.mark.parametrize("count", [9, 300])
@pytest.mark.parametrize(
    "frame",
    [
        PARTS,
        PARTS.select("float"),
        PARTS.with_columns(pl.col("float", "flag").replace({0.0: None})),
        PARTS.with_columns(pl.when(pl.col("int") % 5 != 0).then(pl.all())),
        PARTS.with_columns(day=pl.col("time").cast(pl.Date)),
        pl.concat([PARTS[:200], PARTS[200:]], rechunk=False),
        PARTS.with_columns(other=pl.Series([[1]] * 500)),
    ],
    ids=["plain", "one dtype", "a column with missing values", "all with missing values", "dates", "chunks", "lists"],
)
def test_polars_rows_are_the_same_wherever_they_are_read(frame: pl.DataFrame, count: int) -> None:
    """Rows read where they lie are those that polars would have gathered."""
    indices = np.sort(np.random.default_rng(0).choice(500, count, replace=False))
    _assert_same_cells(frame, frame[indices], indices)


@pytest.mark.parametrize("count", [9, 300])
@pytest.mark.parametrize(
    "table",
    [
        GAPS,
        GAPS.to_batches()[0],
        pa.concat_tables([GAPS[:200], GAPS[200:]]),
        GAPS.select(["float", "text"]),
    ],
    ids=["table", "batch", "chunks", "some columns"],
)
def test_arrow_rows_with_missing_values(table: Any, count: int) -> None:
    """Rows of Arrow columns with missing values are those that Arrow would have gathered."""
    indices = np.sort(np.random.default_rng(0).choice(500, count, replace=False))
    _assert_same_cells(table, table.take(pa.array(indices)), indices)


def _assert_same_cells(whole: Any, gathered: Any, indices: np.ndarray) -> None:
    settings = Settings()
    selector = selector_of(settings)
    cells = []
    for source, rows in ((open_input(whole), indices), (open_input(gathered), None)):
        assert source.names is not None
        found = read_cells(source, selector.select(source.names, source.columns), selector, rows)
        assert found is not None
        cells.append(found)
    assert cells[0][0] == cells[1][0]
    assert cells[0][1].tobytes() == cells[1][1].tobytes()
    assert cells[0][2] == cells[1][2]
