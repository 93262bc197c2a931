"""Values and statistics as bytes: exact round trips, compactness, what happens to what does not fit."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlspan_processor.cells import CellCounts
from mlspan_processor.quality import KINDS, Labelled
from mlspan_processor.store.codec import CodecError, fields_of, fill, fitting, pack, unpack
from tests.processor.quality.batches import classified, regressed

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@given(st.dictionaries(st.text(), values, max_size=5))
def test_plain_values_come_back(document: dict[str, Any]) -> None:
    """Numbers, texts, bytes, lists and mappings are what they were."""
    assert unpack(pack(document)) == document


@given(
    st.sampled_from(["f8", "f4", "i8", "i4", "u8", "u4", "u2", "u1", "i1", "?"]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_side=0, max_dims=3, max_side=6))
    )
)
def test_arrays_come_back(array: np.ndarray) -> None:
    """Every number, NaN and infinity, with dtype and shape."""
    (back,) = unpack(pack({"array": array})).values()
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array, equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize(
    ("array", "bytes_a_number"),
    [
        (np.arange(1000.0) % 200, 1),
        (np.arange(1000.0), 2),
        (np.arange(1000.0) * 1000, 4),
        (np.arange(1000.0) / 4, 4),
        (np.arange(1000.0) / 3, 8),
        (np.full(1000, math.nan), 0),
        (10**18 + np.arange(1000), 2),
        (np.full(1000, 10**18), 0),
    ],
)
def test_numbers_take_no_more_room_than_they_need(array: np.ndarray, bytes_a_number: int) -> None:
    """Whole numbers and floats in doubles, times that lie close together and repetitions are written narrowly."""
    assert len(pack({"array": array})) < bytes_a_number * 1000 + 120


def test_keys_that_are_no_texts() -> None:
    """Mappings by number come back by number."""
    assert unpack(pack({"a": {1: "x", 2: {3: [4]}}})) == {"a": {1: "x", 2: {3: [4]}}}


def test_damaged_bytes_are_refused() -> None:
    """A flipped bit anywhere, bytes that are cut off, or of something else: an error, never other values."""
    data = pack({"a": np.arange(20.0), "b": "text"})
    for at in range(0, len(data), 7):
        with pytest.raises(CodecError):
            unpack(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    for cut in (b"", data[:5], data[:-1]):
        with pytest.raises(CodecError):
            unpack(cut)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["x"]), np.array([None])])
def test_what_cannot_be_written(value: object) -> None:
    """Objects, and arrays of them, are refused."""
    with pytest.raises(CodecError):
        pack({"a": value})


def test_drift_counts_come_back() -> None:
    """A pane's cells, moments and rows; of another layout they are refused."""
    counts = CellCounts(7, 2)
    counts.add_cells(np.array([[0, 1], [5, 6]]), np.array([1.0, 2.5]))
    counts.add_moments(np.array([0, 1]), np.array([[1, 2], [3, np.nan]], np.float32), np.array([1.0, 2.5]))
    counts.add_rows(np.array([1.0, 2.5]))
    data = pack(fields_of(counts))
    back = CellCounts(7, 2)
    fill(back, unpack(data))
    assert pack(fields_of(back)) == data
    with pytest.raises(CodecError):
        fill(CellCounts(8, 2), unpack(data))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_quality_can_be_kept(kind: str) -> None:
    """What a kind has counted can be written, and read into a new one."""
    fill(KINDS[kind](2), unpack(pack(fields_of(KINDS[kind](2)))))


@pytest.mark.parametrize(("kind", "batch"), [("classification", classified(50, 2)), ("regression", regressed(50))])
def test_quality_comes_back(kind: str, batch: Labelled) -> None:
    """The figures are the same afterwards, and counting goes on as if nothing had been."""
    quality, back = KINDS[kind](2), KINDS[kind](2)
    quality.update(batch)
    fill(back, unpack(pack(fields_of(quality))))
    assert back.figures() == quality.figures()
    for one in (quality, back):
        one.update(batch)
    assert back.figures() == quality.figures()


class _Inner:
    def __init__(self) -> None:
        self.sizes = np.zeros(0)


class _Outer:
    """What somebody's own statistics may look like."""

    def __init__(self, work: Callable[[], None] = print) -> None:
        self.work = work
        self.count = 0
        self.inner = _Inner()
        self.names: tuple[str, ...] = ()
        self.added_later = "as new"


def test_objects_of_another_version() -> None:
    """An attribute that was added keeps its value, one that was removed is left out, nested ones are filled."""
    outer = _Outer()
    outer.count, outer.inner.sizes, outer.names = 3, np.arange(4.0), ("a", "b")
    fields = unpack(pack({**fields_of(outer), "removed": 1}))
    del fields["added_later"]
    back = _Outer()
    fill(back, fields)
    assert (back.count, back.inner.sizes.tolist(), back.names, back.added_later) == (
        3,
        [0, 1, 2, 3],
        ("a", "b"),
        "as new",
    )
    assert not hasattr(back, "removed")


def test_objects_that_say_themselves_what_they_are() -> None:
    """`snapshot` and `restore` come before attributes."""

    class Own:
        value = 5

        def snapshot(self) -> dict[str, Any]:
            return {"v": self.value}

        def restore(self, fields: dict[str, Any]) -> None:
            self.value = fields["v"]

    own, back = Own(), Own()
    own.value = 7
    fill(back, unpack(pack(fields_of(own))))
    assert back.value == 7


def test_arrays_that_do_not_fit() -> None:
    """Another shape or no array at all is an error; an empty array takes any length."""
    assert fitting(np.arange(3), np.zeros(0), "x").tolist() == [0, 1, 2]
    for value in (np.arange(3), np.zeros((2, 2)), [1, 2], None):
        with pytest.raises(CodecError):
            fitting(value, np.zeros(2), "x")
