"""Capture of single rows of pandas data frames that are put together like the row before."""

from typing import Any

import numpy as np
import pandas as pd
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
