"""Capture of numpy arrays, sparse matrices and Python sequences."""

import array
import datetime as dt
import decimal
import enum
import fractions
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from mlspan.capture import capture_output
from tests.instrumentation.inputs import capture, code, columns

if TYPE_CHECKING:
    from collections.abc import Iterator

X = np.arange(12.0).reshape(4, 3)
PLAIN = {"x0": ("numeric", [0, 3, 6, 9]), "x1": ("numeric", [1, 4, 7, 10]), "x2": ("numeric", [2, 5, 8, 11])}


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "longdouble", "i1", "u2", "i8", "u8", ">f8", "O"])
def test_number_dtypes(dtype: str) -> None:
    """Every dtype of numbers becomes float32 in columns x0, x1, …."""
    captured = capture(X.astype(dtype))
    assert columns(captured) == PLAIN
    assert captured.cells is not None
    assert captured.cells.dtype == np.dtype("<f4")
    assert (captured.rows, captured.columns, captured.indices, captured.error) == (4, 3, None, None)


@pytest.mark.parametrize(
    "make",
    [
        np.asfortranarray,
        lambda X: np.repeat(np.repeat(X, 2, 0), 2, 1)[::2, ::2],
        lambda X: X[::-1][::-1],
        np.matrix,
        np.ma.masked_array,
        lambda X: X.reshape(4, 3, 1),
        lambda X: X.tolist(),
        lambda X: tuple(map(tuple, X.tolist())),
        list,
        lambda X: [[[value] for value in row] for row in X.tolist()],
        memoryview,
        sp.csr_matrix,
        sp.csc_array,
        sp.coo_array,
        sp.dia_array,
        sp.bsr_array,
        sp.lil_array,
        sp.dok_array,
    ],
)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_layouts(make: Any) -> None:
    """The memory layout, the container and the sparse format do not matter."""
    assert columns(capture(make(X))) == PLAIN


def test_read_only_and_mapped_arrays(tmp_path: Path) -> None:
    """Arrays that cannot be written, on disk or in memory, are captured and stay as they are."""
    fixed = X.copy()
    fixed.flags.writeable = False
    assert columns(capture(fixed)) == PLAIN
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert columns(capture(mapped)) == PLAIN


def test_names_of_the_model() -> None:
    """An input without names takes the model's, if there are as many as columns."""
    assert list(columns(capture(X, ("a", "b", "c")))) == ["a", "b", "c"]
    assert list(columns(capture(X, ("a", "b")))) == ["x0", "x1", "x2"]


def test_booleans_dates_and_durations() -> None:
    """Booleans are 0 and 1, dates seconds since 1970, durations seconds; NaT is missing."""
    assert columns(capture(np.array([[True], [False]]))) == {"x0": ("boolean", [1, 0])}
    dates = np.array([["1970-01-02"], ["NaT"]], "M8[D]")
    assert columns(capture(dates)) == {"x0": ("numeric", [86_400, None])}
    durations = np.array([[1_500], ["NaT"]], "m8[ms]")
    assert columns(capture(durations)) == {"x0": ("numeric", [1.5, None])}


def test_out_of_range_numbers_become_infinite_without_a_warning() -> None:
    """Infinity and NaN stay; numbers beyond float32 become infinite, quietly."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured = capture(np.array([[1e300, -1e300, np.inf, np.nan]]))
        listed = capture([[10**400, -(10**400), 2**70, 1]])
    assert captured.cells is not None
    assert_array_equal(captured.cells, [[np.inf, -np.inf, np.inf, np.nan]])
    assert listed.cells is not None
    assert_array_equal(listed.cells.view("<f4"), np.array([[np.inf, -np.inf, 2**70, 1]], "<f4"))


def test_masked_values_are_missing() -> None:
    """What is masked does not leave, whatever is stored behind the mask."""
    numbers = np.ma.masked_array([[1.0], [666.0]], [[False], [True]])
    assert columns(capture(numbers)) == {"x0": ("numeric", [1, None])}
    texts = np.ma.masked_array([["a", "b"], ["secret", "c"]], [[False, False], [True, False]], dtype="U6")
    assert columns(capture(texts))["x0"] == ("categorical", [code("a"), None])
    dates = np.ma.masked_array([["1970-01-02"]], [[True]], dtype="M8[D]")
    assert columns(capture(dates)) == {"x0": ("numeric", [None])}


def test_texts_in_two_dimensions_are_categories() -> None:
    """Arrays of str and bytes give the codes of their texts."""
    for dtype in ("U3", "S3", "O"):
        captured = capture(np.array([["UA"], ["AA"]], dtype))
        assert columns(captured) == {"x0": ("categorical", [code("UA"), code("AA")])}


def test_structured_arrays_have_a_column_per_field() -> None:
    """Fields are columns with their own types; a field that is an array itself is left out."""
    rows = np.array([(1, "a", [1, 2])], [("n", "i4"), ("s", "U2"), ("v", "f4", 2)])
    captured = capture(rows)
    assert columns(captured) == {"n": ("numeric", [1]), "s": ("categorical", [code("a")])}
    assert (captured.columns, captured.error) == (3, "columns of unsupported type: 1")


class Colour(enum.Enum):
    """A category of the user's own."""

    RED = 1


@pytest.mark.parametrize(
    ("values", "kind", "cells"),
    [
        ([1, 2.5, np.float32(3), decimal.Decimal(4), fractions.Fraction(1, 2)], "numeric", [1, 2.5, 3, 4, 0.5]),
        ([1, None, float("nan"), decimal.Decimal("sNaN")], "numeric", [1, None, None, None]),
        ([True, np.False_, None], "boolean", [1, 0, None]),
        ([True, 2, None], "numeric", [1, 2, None]),
        ([None, None], "numeric", [None, None]),
        ([dt.datetime(1970, 1, 2), dt.date(1970, 1, 3), None], "numeric", [86_400, 172_800, None]),
        ([dt.datetime(1970, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))], "numeric", [0]),
        ([dt.timedelta(minutes=1)], "numeric", [60]),
        (["a", None, "b"], "categorical", [code("a"), None, code("b")]),
        (["a", float("nan"), b"b"], "categorical", [code("a"), None, code("b")]),
        (["1", 1, 1.0, True], "categorical", [code("1"), code("1"), code("1.0"), code("True")]),
        (["a", dt.date(2020, 1, 1)], "categorical", [code("a"), code("2020-01-01")]),
        ([Colour.RED, uuid.UUID(int=0)], "categorical", [code("Colour.RED"), code(str(uuid.UUID(int=0)))]),
        (["", "ä\ud800"], "categorical", [code(""), code("ä?")]),
    ],
)
def test_columns_of_python_objects(values: list[Any], kind: str, cells: list[Any]) -> None:
    """The values of an object column decide: numbers, booleans, dates; all else is a category by its text."""
    column = np.empty((len(values), 1), object)
    column[:, 0] = values
    assert columns(capture(column)) == {"x0": (kind, cells)}


@pytest.mark.parametrize("value", [1j, [1], {"a": 1}, {1}, np.zeros(2), object(), bytearray(b"x"), lambda: 0])
def test_objects_that_are_no_values_leave_their_column_out(value: Any) -> None:
    """Complex numbers, containers and objects without a text are not captured; the other columns are."""
    row = np.empty((1, 2), object)
    row[0, 0], row[0, 1] = value, 1.5
    captured = capture(row)
    assert columns(captured)["x1"] == ("numeric", [1.5])
    if not callable(value):  # a function has a text
        assert list(columns(captured)) == ["x1"]
        assert captured.error == "columns of unsupported type: 1"


def test_object_column_keeps_the_wider_type() -> None:
    """A column that held text once stays categorical when a later row has only a number or nothing."""
    from mlspan.budget import ByteBudget
    from mlspan.capture import capture_input
    from mlspan.config import Settings

    settings, budget = Settings(), ByteBudget()

    def types(*row: Any) -> tuple[str, ...]:
        captured = capture_input(np.array([row], object), ("kept a", "kept b"), settings, budget)
        assert captured.schema is not None
        return captured.schema.types

    assert types(True, "a") == ("boolean", "categorical")
    assert types(None, None) == ("boolean", "categorical")
    assert types(1.5, 7) == ("numeric", "categorical")
    assert types(True, 7) == ("numeric", "categorical")
    assert types("b", "b") == ("categorical", "categorical")


def test_documents_are_captured_as_lengths() -> None:
    """One-dimensional texts are documents: their lengths leave, not their hashes."""
    expected = {"x0.length": ("numeric", [5, 1])}
    for texts in (["hello", "x"], ("hello", "x"), np.array(["hello", "x"]), np.array(["hello", "x"], object)):
        assert columns(capture(texts)) == expected
    assert columns(capture([b"abc", None])) == {"x0.length": ("numeric", [3, None])}


def test_one_dimension_of_numbers_is_one_column() -> None:
    """As isotonic regression takes it."""
    assert columns(capture(np.array([1.0, 2.0]))) == {"x0": ("numeric", [1, 2])}
    assert columns(capture(array.array("d", [1, 2]))) == {"x0": ("numeric", [1, 2])}


def test_lists_of_mixed_rows() -> None:
    """Lists keep the types of their values: nothing is turned into text on the way."""
    rows = [[1, "a", True, None], [2.5, "b", False, "c"]]
    assert columns(capture(rows)) == {
        "x0": ("numeric", [1, 2.5]),
        "x1": ("categorical", [code("a"), code("b")]),
        "x2": ("boolean", [1, 0]),
        "x3": ("categorical", [None, code("c")]),
    }
    assert columns(capture([["1.5"]])) == {"x0": ("categorical", [code("1.5")])}


def test_cells_of_different_shapes() -> None:
    """Rows of one length whose cells have different shapes: the column that holds lists is left out, nothing fails."""
    assert capture([[[None], [None]], [None, []]]).error == "columns of unsupported type: 1"


def test_lists_of_dictionaries() -> None:
    """Keys are columns in alphabetical order; what a row lacks is missing."""
    captured = capture([{"b": "x", "a": 1}, {"a": 2, "c": 3.5}])
    assert columns(captured) == {
        "a": ("numeric", [1, 2]),
        "b": ("categorical", [code("x"), None]),
        "c": ("numeric", [None, 3.5]),
    }


@pytest.mark.parametrize(("rows", "shape"), [(X[:0], (0, 3)), (X[:, :0], (4, 0)), ([], (0, 0)), ([[]], (1, 0))])
def test_empty_inputs(rows: Any, shape: tuple[int, int]) -> None:
    """No rows or no columns are captured as just that."""
    captured = capture(rows)
    assert (captured.rows, captured.columns) == shape
    assert captured.cells is not None
    assert captured.cells.shape == shape
    assert captured.error is None


class Lazy:
    """An array that would be computed by being read."""

    shape = (2, 2)

    def __array__(self) -> Any:
        raise AssertionError("was computed")

    def compute(self) -> None:
        """Marks it as lazy."""


class Hostile:
    """An object whose every attribute fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "NoneType"),
        ("text", "str"),
        ({"a": [1]}, "dict"),
        ({1}, "set"),
        (range(3), "range"),
        (Lazy(), "Lazy"),
        ([1, 2], "list of int"),
        ([[1, 2], [3]], "rows of different lengths"),
        (np.array(1.0), "array without dimensions"),
        (sp.coo_array(np.array([1.0, 2.0])), "sparse array of other than two dimensions"),
    ],
)
def test_unsupported_inputs(value: Any, name: str) -> None:
    """What is no table of rows is named as unsupported, by its type and never by its content."""
    captured = capture(value)
    assert captured.error == f"unsupported input: {name}"
    assert captured.cells is None


def test_hostile_objects() -> None:
    """An object that fails whatever it is asked is unsupported, no more."""
    assert capture(Hostile()).error == "unsupported input: Hostile"


def test_iterators_are_not_consumed() -> None:
    """A generator or file is left to the model as it was."""
    generator = (row for row in [[1, 2], [3, 4]])
    assert capture(generator).error == "unsupported input: generator"
    assert list(generator) == [[1, 2], [3, 4]]
    rows: Iterator[Any] = iter([[1]])
    capture(rows)
    assert list(rows) == [[1]]


def test_answers_of_unsupported_inputs_are_captured() -> None:
    """Where the rows cannot be read, the answers are captured still, over as many rows as there are."""
    captured = capture(object())
    output = capture_output("predict", np.arange(2_000.0), captured, None)
    assert captured.rows == 2_000
    assert captured.cells is not None
    assert captured.cells.shape == (189, 0)
    assert captured.indices is not None
    assert output.predictions is not None
    assert_array_equal(output.predictions[:, 0], captured.indices)


def test_array_interface_and_array_protocol() -> None:
    """Objects that are arrays for numpy are arrays for capture."""

    class Wrapped:
        shape = (4, 3)

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return X

    class Shared:
        __array_interface__ = X.__array_interface__

    assert columns(capture(Wrapped())) == PLAIN
    assert columns(capture(Shared())) == PLAIN


def test_wide_sparse_matrices_stay_sparse() -> None:
    """Only the first columns of the sampled rows become dense."""
    wide = sp.csr_array((1_000, 10**7))
    captured = capture(wide, max_columns=50)
    assert (captured.rows, captured.columns) == (1_000, 10**7)
    assert captured.cells is not None
    assert captured.cells.shape == (126, 50)


def test_large_coo_is_not_converted() -> None:
    """A sparse format without row access is converted only while that is cheap."""
    n = 1_000_001
    big = sp.coo_array((np.ones(n), (np.arange(n), np.zeros(n, int))), shape=(n, 1))
    assert capture(big).error == "unsupported input: coo with more than 1000000 stored values; csr is"


arrays = hnp.arrays(
    st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(), hnp.byte_string_dtypes(), hnp.complex_number_dtypes()),
    hnp.array_shapes(min_dims=0, max_dims=4, max_side=5),
)


@given(arrays)
def test_any_array_is_captured_or_named(values: Any) -> None:
    """No array fails; rows are always right, and the input is not changed."""
    before = values.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured = capture(values)
    if values.ndim:
        assert captured.rows == len(values)
        assert captured.cells is not None
        assert captured.error is None or captured.error.startswith("columns of unsupported type")
    assert before.tobytes() == values.tobytes()
    assert captured.cells is None or not np.shares_memory(captured.cells, values)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | st.decimals(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=12,
)


@given(st.lists(st.lists(anything, min_size=2, max_size=2), max_size=5) | anything)
def test_any_python_data_is_captured_or_named(rows: Any) -> None:
    """No nesting of Python values fails."""
    captured = capture(rows)
    assert captured.error is None or captured.error.startswith(("unsupported input", "columns of unsupported"))
