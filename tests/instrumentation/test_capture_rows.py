"""Capture of single rows of tables, which has ways of its own."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlspan.budget import ByteBudget
from mlspan.capture import capture_input
from mlspan.columns import TextCodes
from mlspan.config import Settings
from mlspan.selection import selector_of
from tests.instrumentation.inputs import code, columns

PLANNED = pd.DataFrame(
    {
        "number": [1.5, np.nan, 3],
        "text": pd.Series(["a", None, "b"], dtype="str"),
        "count": [1, 2, 3],
        "flag": [True, False, True],
        "object": pd.Series(["x", None, "y"], dtype=object),
        "python text": pd.Series(["p", pd.NA, "q"], dtype=pd.StringDtype("python")),
        "category": pd.Series(["u", None, "v"], dtype="category"),
        "nullable": pd.Series([1, None, 3], dtype="Int64"),
        "nullable flag": pd.Series([True, None, False], dtype="boolean"),
        "small": np.array([1, 2, 1e30], np.float32),
        "more": [7.0, 8.0, 9.0],
    }
)


def test_rows_are_read_by_plan_as_within_a_frame() -> None:
    """The rows after the first one of frames that are put together alike have the same types and cells as together."""
    settings = Settings()
    together = columns(capture_input(PLANNED, None, settings, ByteBudget()))
    for at in (0, 1, 2, 1, 0):
        single = columns(capture_input(PLANNED.iloc[[at]].copy(), None, settings, ByteBudget()))
        assert single == {name: (kind, cells[at : at + 1]) for name, (kind, cells) in together.items()}
    plan = selector_of(settings).select(tuple(PLANNED.columns.astype(str)), PLANNED.shape[1]).plan
    assert plan is not None
    assert plan.read(PLANNED.iloc[[1]], TextCodes(settings.hash_key)) is not None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("number", pd.Series(["text"], dtype="str")),
        ("count", [2.5]),
        ("flag", [3]),
        ("object", pd.Series([3.5], dtype=object)),
        ("object", pd.Series([["a list"]], dtype=object)),
        ("text", pd.Series(["a"], dtype="category")),
        ("text", [1.5]),
        ("category", pd.Series(["a"], dtype=object)),
        ("nullable", pd.Series([True], dtype="boolean")),
        ("nullable", pd.Series([1], dtype="int64[pyarrow]")),
        ("more", pd.to_datetime(["2020-01-01"])),
    ],
)
def test_a_plan_is_for_frames_that_are_put_together_alike(name: str, values: Any) -> None:
    """A frame with the same columns of other types is read as if no row had come before."""
    row = PLANNED.iloc[[0]].reset_index(drop=True)
    other = row.assign(**{name: values})
    settings = Settings()
    for _ in range(2):
        capture_input(row, None, settings, ByteBudget())
    found = capture_input(other, None, settings, ByteBudget())
    with_known = Settings()
    capture_input(PLANNED, None, with_known, ByteBudget())
    expected = capture_input(pd.concat([other, other]), None, with_known, ByteBudget())
    assert columns(found) == {key: (kind, cells[:1]) for key, (kind, cells) in columns(expected).items()}
    assert found.error == expected.error


def test_the_same_columns_in_other_blocks_are_told_apart() -> None:
    """Columns of the same types whose blocks hold them in another order keep their values."""
    settings = Settings()
    frame = pd.DataFrame({"a": [1.0], "b": ["x"], "c": [2.0]})
    swapped = pd.DataFrame({"c": [2.0], "b": ["x"], "a": [1.0]})[["a", "b", "c"]]
    one_by_one = pd.DataFrame({"a": [1.0]})
    for key in ("b", "c"):
        one_by_one[key] = frame[key]
    for one in (frame, swapped, one_by_one, frame):
        for _ in range(2):
            assert columns(capture_input(one, None, settings, ByteBudget())) == {
                "a": ("numeric", [1.0]),
                "b": ("categorical", [code("x")]),
                "c": ("numeric", [2.0]),
            }


TABLE = pl.DataFrame(
    {
        "float": [1.5, None, float("nan")],
        "single": pl.Series([1.5, 1e30, None], dtype=pl.Float32),
        "int": [1, None, 2**60],
        "byte": pl.Series([1, None, 255], dtype=pl.UInt8),
        "bool": [True, None, False],
        "text": ["a", None, ""],
        "categorical": pl.Series(["x", None, "y"], dtype=pl.Categorical),
        "enum": pl.Series(["x", None, "x"], dtype=pl.Enum(["x"])),
    }
)
ARROW = pa.table(
    {
        "float": pa.array([1.5, None, float("nan")]),
        "int": pa.array([1, None, 2**60]),
        "bool": pa.array([True, None, False]),
        "text": pa.array(["a", None, ""]),
        "large": pa.array(["a", None, ""], pa.large_string()),
    }
)
DATES = pa.table({"int": pa.array([1, 2, 3]), "day": pa.array([0, None, 1], pa.date32())})


@pytest.mark.parametrize(
    "table",
    [
        *(TABLE, TABLE.with_columns(pl.Series("day", [0, None, 1], dtype=pl.Date)), TABLE.select("float", "single")),
        *(pl.concat([TABLE[:2], TABLE[2:]], rechunk=False), ARROW, DATES, ARROW.to_batches()[0]),
        pa.concat_tables([ARROW[:2], ARROW[2:]]),
    ],
    ids=["polars", "with dates", "numbers", "pieces", "arrow", "arrow with dates", "batch", "arrow in pieces"],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_row_of_a_table_is_captured_like_many(table: Any, at: int) -> None:
    """A single row of polars' or Arrow's tables has the types and cells that it has within the table."""
    together = columns(capture_input(table, None, Settings(), ByteBudget()))
    single = columns(capture_input(table.slice(at, 1), None, Settings(), ByteBudget()))
    assert single == {name: (kind, cells[at : at + 1]) for name, (kind, cells) in together.items()}


@pytest.mark.parametrize("make", [pl.DataFrame, pa.Table.from_pylist, pd.DataFrame])
def test_a_text_column_stays_one_when_its_value_is_missing(make: Any) -> None:
    """Rows that come one by one, in tables made for each of them, do not look like another schema."""
    settings = Settings()
    for value in ("x", None, "y", None):
        found = columns(capture_input(make([{"n": 1.5, "a": value}]), None, settings, ByteBudget()))
        assert found["a"][0] == "categorical"
    several = Settings()
    capture_input(make([{"n": 1.5, "a": "x"}] * 3), None, several, ByteBudget())
    assert columns(capture_input(make([{"n": 1.5, "a": None}]), None, several, ByteBudget()))["a"][0] == "categorical"


@pytest.mark.parametrize("count", [1, 5, 3_000])
@pytest.mark.parametrize("make", [pl.DataFrame, pa.table])
def test_tables_of_which_no_column_is_captured(make: Any, count: int) -> None:
    """Every column forbidden: rows without cells, for the answers' sake."""
    captured = capture_input(make({"a": [1.5] * count, "b": ["x"] * count}), None, Settings(deny=("*",)), ByteBudget())
    assert captured.error is None
    assert captured.cells is not None
    assert captured.cells.shape == (min(count, 64 + count // 16) if count > 64 else count, 0)


def test_a_dictionary_of_lists_costs_its_column_alone() -> None:
    """What has no text of its own is left out, as anywhere."""
    table = pa.table({"ok": [1.5, 2.5], "d": pa.DictionaryArray.from_arrays([0, 1], [[1], [2]])})
    captured = capture_input(table, None, Settings(), ByteBudget())
    assert columns(captured) == {"ok": ("numeric", [1.5, 2.5])}
    assert captured.error == "columns of unsupported type: 1"


@pytest.mark.parametrize("count", [10, 3_000])
@pytest.mark.parametrize("make", [pl.DataFrame, pa.table, pd.DataFrame])
def test_the_content_hook_sees_numbers_as_they_are(make: Any, count: int) -> None:
    """Whole numbers beyond 2**24 arrive as such, however many rows there are."""
    seen: list[Any] = []

    def hook(found: Any) -> Any:
        seen.append(found["id"])
        return found

    data = {"id": list(range(2**30, 2**30 + count)), "x": [0.5] * count, "text": ["a"] * count}
    capture_input(make(data), None, Settings(capture_hook=hook), ByteBudget())
    assert seen[0].dtype == np.int64
    assert len(set(seen[0].tolist())) == len(seen[0])


@pytest.mark.parametrize("deny", [(), ("float", "x*")])
def test_sampled_rows_of_all_types_of_columns(deny: tuple[str, ...]) -> None:
    """Rows sampled from a table are the same rows in every column, with and without all of the columns."""
    count = 2_000
    data: dict[str, list[Any]] = {
        "float": [at / 2 for at in range(count)],
        "int": list(range(count)),
        "missing": [None if at % 3 == 0 else at for at in range(count)],
        "even": [at % 2 == 0 for at in range(count)],
        "text": [f"row {at}" for at in range(count)],
    }
    for table in (pl.DataFrame(data), pa.table(data), pa.concat_tables([pa.table(data)[:7], pa.table(data)[7:]])):
        found = columns(capture_input(table, None, Settings(deny=deny), ByteBudget()))
        assert list(found) == [name for name in data if name not in deny]
        numbers = [int(value) for value in found["int"][1]]
        assert len(set(numbers)) == len(numbers) >= 64
        for name in found:
            values = [data[name][number] for number in numbers]
            expected = [code(value) for value in values] if name == "text" else values
            assert found[name][1] == expected
