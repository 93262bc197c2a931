"""Capture of pandas, polars and pyarrow tables."""

import datetime as dt
import decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from mlspan.budget import ByteBudget
from mlspan.capture import Input, capture_input
from mlspan.config import Settings
from mlspan.inputs.pandas_blocks import parts_of
from mlspan.sampling import seed
from tests.instrumentation.inputs import capture, code, columns

DAY = 86_400.0
_array: Any = pd.array  # its overloads know no list that holds None
FRAME = pd.DataFrame(
    {
        "float": [1.5, np.nan],
        "int": [1, 2],
        "bool": [True, False],
        "Int64": _array([1, None], "Int64"),
        "boolean": _array([True, None], "boolean"),
        "Float64": _array([1.5, None], "Float64"),
        "str": ["a", None],
        "string[pyarrow]": _array(["a", None], "string[pyarrow]"),
        "string[python]": _array(["a", None], "string[python]"),
        "category": pd.Categorical(["x", None]),
        "numeric category": pd.Categorical([1, 2]),
        "object": np.array(["a", None], object),
        "mixed": np.array(["a", 1], object),
        "date": pd.to_datetime(pd.Series(["1970-01-02", None])),
        "zoned": pd.to_datetime(pd.Series(["1970-01-02T01:00", None])).dt.tz_localize("Europe/Berlin"),
        "duration": pd.to_timedelta(["1D", None]),
        "sparse": pd.arrays.SparseArray([0.0, 1.0]),
        "period": pd.period_range("2020-01-01", periods=2, freq="D"),
        "arrow int": _array([1, None], dtype=pd.ArrowDtype(pa.int64())),
        "arrow text": _array(["a", None], dtype=pd.ArrowDtype(pa.string())),
        "complex": [1j, 2],
        "list": [[1], [2]],
    }
)
EXPECTED: dict[str, tuple[str, list[Any]]] = {
    "float": ("numeric", [1.5, None]),
    "int": ("numeric", [1, 2]),
    "bool": ("boolean", [1, 0]),
    "Int64": ("numeric", [1, None]),
    "boolean": ("boolean", [1, None]),
    "Float64": ("numeric", [1.5, None]),
    "str": ("categorical", [code("a"), None]),
    "string[pyarrow]": ("categorical", [code("a"), None]),
    "string[python]": ("categorical", [code("a"), None]),
    "category": ("categorical", [code("x"), None]),
    "numeric category": ("categorical", [code("1"), code("2")]),
    "object": ("categorical", [code("a"), None]),
    "mixed": ("categorical", [code("a"), code("1")]),
    "date": ("numeric", [DAY, None]),
    "zoned": ("numeric", [DAY, None]),
    "duration": ("numeric", [DAY, None]),
    "sparse": ("numeric", [0, 1]),
    "period": ("categorical", [code("2020-01-01"), code("2020-01-02")]),
    "arrow int": ("numeric", [1, None]),
    "arrow text": ("categorical", [code("a"), None]),
}


def test_every_pandas_dtype() -> None:
    """Each dtype has one type of column and one idea of missing; complex numbers and lists are left out."""
    captured = capture(FRAME)
    assert columns(captured) == EXPECTED
    assert (captured.rows, captured.columns) == (2, 22)
    assert captured.error == "columns of unsupported type: 2"


@pytest.mark.parametrize("row", [0, 1])
def test_one_row_is_captured_like_many(row: int) -> None:
    """The quick way for single rows gives the types and cells that the row has within a larger frame."""
    settings, budget = Settings(), ByteBudget()
    capture_input(FRAME, None, settings, budget)  # which types the object columns hold is known then
    single = columns(capture_input(FRAME.iloc[[row]], None, settings, budget))
    assert single == {name: (kind, cells[row : row + 1]) for name, (kind, cells) in EXPECTED.items()}


@pytest.mark.parametrize("rows", [slice(0, 2), slice(0, 1), slice(1, 2)])
def test_blocks_and_public_methods_agree(rows: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read block by block is what pandas' public methods say, with and without all of the columns."""
    frame = FRAME.iloc[rows]
    assert parts_of(frame, len(frame.columns)) is not None
    for settings in (Settings(), Settings(deny=("float*", "text", "zoned")), Settings(max_columns=5)):
        capture_input(FRAME, None, settings, ByteBudget())  # which types the object columns hold is known then
        by_blocks = columns(capture_input(frame, None, settings, ByteBudget()))
        with monkeypatch.context() as patch:
            patch.setattr("mlspan.inputs.pandas.parts_of", lambda *_: None)
            assert columns(capture_input(frame, None, settings, ByteBudget())) == by_blocks


def test_blocks_that_are_not_as_expected_are_left_alone() -> None:
    """Another number of columns than the frame has, other attributes: the public methods read it."""
    assert parts_of(FRAME, 3) is None
    assert parts_of(SimpleNamespace(_mgr=SimpleNamespace(blocks=[None])), 1) is None
    assert parts_of(SimpleNamespace(), 1) is None


def test_many_rows_are_captured_like_few() -> None:
    """Sampled rows are the same rows in every column."""
    count = 3_000
    frame = pd.DataFrame({"number": np.arange(count), "half": np.arange(count) / 2, "flag": np.arange(count) % 2 == 0})
    frame["text"] = frame["number"].astype(str)
    frame["object"] = frame["text"].astype(object)
    frame["category"] = frame["text"].astype("category")
    found = columns(capture(frame))
    numbers = [int(value) for value in found["number"][1]]
    assert 16 <= len(numbers) < count
    assert found["half"][1] == [value / 2 for value in numbers]
    assert found["flag"][1] == [float(value % 2 == 0) for value in numbers]
    for name in ("text", "object", "category"):
        assert found[name] == ("categorical", [code(str(value)) for value in numbers])


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1.5, 2], "b": [3.5, 4]}),
        pd.DataFrame({"a": [1.5, 2], "b": [3, 4]}),
        pd.DataFrame({"a": np.array([1.5, 2], np.float32), "b": np.array([3, 4], np.int8)}),
    ],
)
def test_frames_of_numbers(frame: pd.DataFrame) -> None:
    """Frames that are read in one call, before and after their layout is known."""
    expected = {name: ("numeric", frame[name].tolist()) for name in frame}
    settings, budget = Settings(), ByteBudget()
    for _ in range(3):
        assert columns(capture_input(frame, None, settings, budget)) == expected
        large = pd.concat([frame] * 2_000)
        assert capture_input(large, None, settings, budget).error is None
        assert columns(capture_input(frame, None, settings, budget)) == expected


def test_changed_dtypes_under_the_same_columns() -> None:
    """What is remembered of the columns does not outlive a change of dtypes, in place or in a new frame."""
    settings, budget = Settings(), ByteBudget()
    frame = pd.DataFrame({"changing": [1.5, 2.5], "b": [1.0, 2.0]})
    names = frame.columns
    assert columns(capture_input(frame, None, settings, budget))["changing"] == ("numeric", [1.5, 2.5])
    for values, kind, cells in (
        (["u", "v"], "categorical", [code("u"), code("v")]),
        ([True, False], "boolean", [1, 0]),
        ([1, 2], "numeric", [1, 2]),
        (pd.Categorical([1, 2]), "categorical", [code("1"), code("2")]),
        ([0.5, 1.5], "numeric", [0.5, 1.5]),
    ):
        frame["changing"] = values
        assert frame.columns is names or list(frame.columns) == list(names)
        assert columns(capture_input(frame, None, settings, budget))["changing"] == (kind, cells)


def test_a_single_column_that_becomes_categories_of_numbers() -> None:
    """Categories are read as categories, though pandas shows them as a read-only array of numbers."""
    settings, budget = Settings(), ByteBudget()
    for _ in range(2):
        plain = capture_input(pd.DataFrame({"only": [1, 2]}), None, settings, budget)
        assert columns(plain)["only"] == ("numeric", [1, 2])
        chosen = capture_input(pd.DataFrame({"only": pd.Categorical([1, 2])}), None, settings, budget)
        assert columns(chosen)["only"] == ("categorical", [code("1"), code("2")])


def test_one_row_beyond_float32_is_infinite() -> None:
    """One row of a frame of numbers is what numpy makes of it: beyond float32, infinity, without a warning."""
    settings, budget = Settings(), ByteBudget()
    for _ in range(2):  # the second time the columns are known
        captured = capture_input(pd.DataFrame({"x": [1e300], "y": [-0.5]}), None, settings, budget)
        assert captured.cells is not None
        assert captured.cells.tolist() == [[np.inf, -0.5]]


def test_column_names() -> None:
    """Names are texts; those of several levels are joined, repeated ones told apart, long ones cut."""
    assert list(columns(capture(pd.DataFrame([[1, 2.5]])))) == ["0", "1"]
    levels = pd.MultiIndex.from_tuples([("a", "b"), ("a", 1)])
    assert list(columns(capture(pd.DataFrame([[1, 2]], columns=levels)))) == ["a.b", "a.1"]
    doubled = pd.DataFrame([[1, "u", 2.5]], columns=["a", "a", "a.1"])
    for frame in (doubled, pd.concat([doubled] * 3)):
        found = columns(capture(frame))
        assert [(name, found[name][0]) for name in found] == [
            ("a", "numeric"),
            ("a.1", "categorical"),
            ("a.1.1", "numeric"),
        ]
    assert list(columns(capture(pd.DataFrame([[1]], columns=["n" * 1_000])))) == ["n" * 256]


def test_empty_frames() -> None:
    """Without rows the types are known; without columns the rows are."""
    captured = capture(FRAME.iloc[:0])
    assert captured.rows == 0
    assert captured.schema is not None
    assert captured.schema.types[:3] == ("numeric", "numeric", "boolean")
    captured = capture(pd.DataFrame(index=[1, 2]))
    assert (captured.rows, captured.columns, captured.error) == (2, 0, None)


def test_series() -> None:
    """A series of texts is documents; any other is one column."""
    assert columns(capture(pd.Series([1, 2], name="n"))) == {"n": ("numeric", [1, 2])}
    assert columns(capture(pd.Series([1.5]))) == {"x0": ("numeric", [1.5])}
    assert columns(capture(pd.Series(["abc", None], name="doc"))) == {"doc.length": ("numeric", [3, None])}
    assert columns(capture(pd.Series(["a"], dtype="category"))) == {"x0": ("categorical", [code("a")])}


def test_categories_are_hashed_once_per_list() -> None:
    """Large and small lists of categories, used and unused ones, give the codes of their texts."""
    settings, budget = Settings(), ByteBudget()
    for size in (3, 10_000):
        dtype = pd.CategoricalDtype([f"k{at}" for at in range(size)])
        for values in (["k1", None, "k2"], ["k0", "k1", "k1"]):
            frame = pd.DataFrame({"c": pd.Series(values, dtype=dtype)})
            expected = [value and code(value) for value in values]
            assert columns(capture_input(frame, None, settings, budget)) == {"c": ("categorical", expected)}


def test_frame_is_not_kept_or_changed() -> None:
    """The cells are copies, and later changes of the frame do not reach them."""
    frame = pd.DataFrame({"a": [1.5, 2.5]})
    captured = capture(frame)
    before = frame.copy()
    frame.loc[:, "a"] = 0
    assert columns(captured) == {"a": ("numeric", [1.5, 2.5])}
    assert before["a"].tolist() == [1.5, 2.5]
    assert captured.cells is not None
    assert captured.cells.base is None or captured.cells.flags.owndata or captured.cells.base.flags.owndata


def test_subclasses_of_frames() -> None:
    """A subclass is read as the frame it is."""

    class Special(pd.DataFrame):
        pass

    assert columns(capture(Special({"a": [1.0]}))) == {"a": ("numeric", [1])}


POLARS = pl.DataFrame(
    {
        "float": [1.5, None],
        "int": [1, None],
        "bool": [True, False],
        "null bool": [True, None],
        "str": ["a", None],
        "categorical": pl.Series(["x", None], dtype=pl.Categorical),
        "enum": pl.Series(["x", None], dtype=pl.Enum(["x"])),
        "date": [dt.date(1970, 1, 2), None],
        "datetime": [dt.datetime(1970, 1, 2), None],
        "duration": [dt.timedelta(1), None],
        "decimal": [decimal.Decimal("1.5"), None],
        "null": [None, None],
        "list": [[1], None],
        "struct": [{"a": 1}, None],
    }
)
ARROW = pa.table(
    {
        "float": [1.5, None],
        "int": pa.array([1, None]),
        "bool": [True, False],
        "null bool": [True, None],
        "str": ["a", None],
        "categorical": pa.array(["x", None]).dictionary_encode(),
        "enum": pa.array(["x", None], pa.large_string()),
        "date": [dt.date(1970, 1, 2), None],
        "datetime": [dt.datetime(1970, 1, 2), None],
        "duration": [dt.timedelta(1), None],
        "decimal": [decimal.Decimal("1.5"), None],
        "null": pa.nulls(2),
        "list": [[1], None],
        "struct": [{"a": 1}, None],
    }
)
TABLE: dict[str, tuple[str, list[Any]]] = {
    "float": ("numeric", [1.5, None]),
    "int": ("numeric", [1, None]),
    "bool": ("boolean", [1, 0]),
    "null bool": ("boolean", [1, None]),
    "str": ("categorical", [code("a"), None]),
    "categorical": ("categorical", [code("x"), None]),
    "enum": ("categorical", [code("x"), None]),
    "date": ("numeric", [DAY, None]),
    "datetime": ("numeric", [DAY, None]),
    "duration": ("numeric", [DAY, None]),
    "decimal": ("numeric", [1.5, None]),
    "null": ("numeric", [None, None]),
}


@pytest.mark.parametrize("table", [POLARS, ARROW, ARROW.to_batches()[0]], ids=["polars", "arrow", "batch"])
def test_polars_and_arrow(table: Any) -> None:
    """polars and Arrow columns follow the same rules; lists and structs are left out."""
    captured = capture(table)
    assert columns(captured) == TABLE
    assert (captured.rows, captured.columns, captured.error) == (2, 14, "columns of unsupported type: 2")
    assert list(columns(capture(table, allow=("float", "str", "enum")))) == ["float", "str", "enum"]


def test_missing_texts_stay_categorical() -> None:
    """A column of texts without any in this call is still one."""
    for table in (POLARS[1:], ARROW.slice(1)):
        found = columns(capture(table))
        assert [found[name][0] for name in ("str", "categorical", "enum")] == ["categorical"] * 3


def test_chunked_and_sliced_arrow() -> None:
    """Chunks are one column, and a slice is what it shows."""
    assert columns(capture(pa.concat_tables([ARROW, ARROW])))["str"] == ("categorical", [code("a"), None] * 2)
    assert columns(capture(ARROW.slice(1)))["bool"] == ("boolean", [0])
    assert capture(ARROW.slice(2)).rows == 0


@pytest.mark.parametrize("make", [pl.DataFrame, pa.table])
def test_sampled_rows_of_tables(make: Any) -> None:
    """The sampled rows are the same ones in every column."""
    numbers = np.arange(2_000)
    captured = capture(make({"number": numbers, "text": [str(value) for value in numbers]}))
    found = columns(captured)
    assert_array_equal(found["number"][1], captured.indices)
    assert found["text"][1] == [code(str(int(value))) for value in found["number"][1]]


def test_lazy_frames_are_left_alone() -> None:
    """A query is not run a second time to be looked at."""
    assert capture(POLARS.lazy()).error == "unsupported input: LazyFrame"
    assert columns(capture(pl.Series("doc", ["abc"]))) == {"doc.length": ("numeric", [3])}
    assert columns(capture(pl.Series("n", [1, 2]))) == {"n": ("numeric", [1, 2])}


def test_pandas_and_polars_and_lists_agree() -> None:
    """The same table gives the same cells in whatever form it comes."""
    seed(7)
    try:
        data = {"a": [1.5, 2.5], "b": ["u", "v"], "c": [True, False]}
        forms: list[Any] = [pd.DataFrame(data), pl.DataFrame(data), pa.table(data)]
        rows = [list(row) for row in zip(*data.values(), strict=True)]
        found: list[Input] = [capture(form) for form in forms] + [capture(rows, ("a", "b", "c"))]
        cells = [one.cells for one in found]
        for other in cells[1:]:
            assert cells[0] is not None
            assert other is not None
            assert_array_equal(cells[0].view("<u4"), other.view("<u4"))
        assert len({one.schema for one in found}) == 1
    finally:
        seed()
