"""The packed bytes of ml.payload: golden vectors, round trips, damaged input, and docs/payload.md's example."""

import base64
import contextlib
import doctest
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mlspan import payload
from mlspan.payload import Payload, PayloadError, category_code, column_bits, decode, encode

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"

F4, I4, U4 = np.dtype("<f4"), np.dtype("<i4"), np.dtype("<u4")


def _cells(*columns: Any) -> Any:
    """Columns of float32 or uint32 side by side as cells."""
    return np.stack([np.asarray(column).view(U4) for column in columns], axis=1)


VECTORS: dict[str, dict[str, Any]] = {
    "one-row-classifier": {
        "total_rows": 1,
        "cells": _cells(np.array([17], F4), np.array([np.nan], F4), np.array([category_code("UA", b"mlspan")], U4)),
        "bits": column_bits([False, False, True]),
        "prediction_kind": payload.PREDICTION_CLASS,
        "predictions": np.array([[1]], I4),
        "score_kind": payload.SCORE_PROBABILITY,
        "scores": np.array([[0.25, 0.75]], F4),
    },
    "sampled-regressor": {
        "total_rows": 4_294_967_295,
        "cells": np.array([[1.5, -np.inf], [2.5, np.inf]], F4),
        "bits": column_bits([False, False]),
        "prediction_kind": payload.PREDICTION_NUMBER,
        "predictions": np.array([[3.25], [-4]], F4),
        "indices": np.array([7, 4_294_967_294], U4),
    },
    "ids-and-raw-scores": {
        "total_rows": 3,
        "cells": np.zeros((3, 1), F4),
        "bits": column_bits([False]),
        "prediction_kind": payload.PREDICTION_CLASS,
        "predictions": np.array([[0], [-1], [1]], I4),
        "score_kind": payload.SCORE_RAW,
        "scores": np.array([[-0.5], [0], [2]], F4),
        "ids": ["order-4711", "", "Ä"],
    },
    "forty-columns-two-outputs": {
        "total_rows": 1,
        "cells": np.arange(40, dtype=U4).reshape(1, 40),
        "bits": column_bits([column in {0, 31, 32, 39} for column in range(40)]),
        "prediction_kind": payload.PREDICTION_NUMBER,
        "predictions": np.array([[1, 2]], F4),
    },
    "answers-only": {
        "total_rows": 2,
        "cells": np.empty((2, 0), F4),
        "bits": column_bits([]),
        "prediction_kind": payload.PREDICTION_NUMBER,
        "predictions": np.array([[1], [2]], F4),
    },
}


@pytest.mark.parametrize("name", VECTORS)
def test_golden_vector(name: str) -> None:
    """The bytes of a call are those of the golden file, and read back as what they were made of."""
    expected = bytes.fromhex((GOLDEN / f"payload-{name}.hex").read_text())
    call = VECTORS[name]
    assert encode(**call) == expected
    _assert_same(decode(expected), call)


def test_golden_files_are_all_used() -> None:
    """Each golden payload has its test."""
    assert {path.stem for path in GOLDEN.glob("payload-*.hex")} == {f"payload-{name}" for name in VECTORS}


def _assert_same(found: Payload, call: dict[str, Any]) -> None:
    assert found.total_rows == call["total_rows"]
    assert_array_equal(found.cells, call["cells"].view(U4))
    assert column_bits(found.categorical.tolist()) == call["bits"]
    assert found.prediction_kind == call.get("prediction_kind", 0)
    assert found.score_kind == call.get("score_kind", 0)
    for name in ("predictions", "scores"):
        if call.get(name) is None:
            assert getattr(found, name).size == 0
        else:
            assert getattr(found, name).dtype == call[name].dtype
            assert_array_equal(getattr(found, name), call[name])
    if call.get("indices") is None:
        assert found.indices is None
    else:
        assert_array_equal(found.indices, call["indices"])
    assert found.ids == (None if call.get("ids") is None else tuple(call["ids"]))


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Any call that capture could hand over."""
    rows, columns = draw(st.integers(0, 9)), draw(st.integers(0, 70))
    outputs, scores = draw(st.integers(0, 3)), draw(st.integers(0, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))

    def words(n: int) -> Any:
        return random.integers(0, 2**32, (rows, n), dtype=U4)

    kind = draw(st.sampled_from([payload.PREDICTION_CLASS, payload.PREDICTION_NUMBER]))
    dtype = I4 if kind == payload.PREDICTION_CLASS else F4
    return {
        "total_rows": rows + draw(st.integers(0, 10**6)),
        "cells": words(columns),
        "bits": column_bits((random.random(columns) < 0.5).tolist()),
        "prediction_kind": kind if outputs else payload.PREDICTION_NONE,
        "predictions": words(outputs).view(dtype) if outputs else None,
        "score_kind": draw(st.sampled_from([1, 2])) if scores else payload.SCORE_NONE,
        "scores": words(scores).view(F4) if scores else None,
        "indices": random.integers(0, 2**32, rows, dtype=U4) if draw(st.booleans()) else None,
        "ids": draw(st.none() | st.lists(st.text(max_size=40), min_size=rows, max_size=rows)),
    }


@given(calls())
def test_round_trip(call: dict[str, Any]) -> None:
    """What is decoded is what was encoded, whatever the shapes, kinds and bits."""
    if call["ids"] is not None:  # lone surrogates become question marks
        call["ids"] = [text.encode("utf-8", "replace").decode() for text in call["ids"]]
    found = decode(encode(**call))
    for name in ("predictions", "scores"):  # compared as bits: NaN is not equal to NaN
        if call[name] is not None and call["prediction_kind" if name == "predictions" else "score_kind"]:
            assert getattr(found, name).tobytes() == call[name].tobytes()
            call[name] = getattr(found, name)
    _assert_same(found, call) if not _has_nan(call) else None


def _has_nan(call: dict[str, Any]) -> bool:
    return any(
        call[name] is not None and call[name].dtype == F4 and bool(np.isnan(call[name]).any())
        for name in ("predictions", "scores")
    )


@pytest.mark.parametrize("name", VECTORS)
def test_every_truncation_is_refused(name: str) -> None:
    """A payload that ends early, or goes on, is refused at any length."""
    data = encode(**VECTORS[name])
    for length in range(len(data)):
        with pytest.raises(PayloadError):
            decode(data[:length])
    with pytest.raises(PayloadError):
        decode(data + b"\0")


@pytest.mark.parametrize("name", VECTORS)
def test_every_changed_header_byte_is_refused_or_valid(name: str) -> None:
    """Any other value of any header byte gives a PayloadError or a payload that fits its bytes."""
    data = bytearray(encode(**VECTORS[name]))
    for at in range(payload.HEADER.size):
        original = data[at]
        for value in range(256):
            data[at] = value
            try:
                found = decode(bytes(data))
            except PayloadError:
                continue
            cells = found.cells.size + found.predictions.size + found.scores.size
            assert 4 * cells <= len(data)
        data[at] = original


@given(st.binary(max_size=200))
def test_noise_is_refused_or_valid(data: bytes) -> None:
    """Random bytes, with and without the right first two, never raise anything but PayloadError."""
    for damaged in (data, bytes([payload.MAGIC, payload.VERSION]) + data):
        try:
            decode(damaged)
        except PayloadError:
            continue


@settings(max_examples=300)
@given(calls(), st.data())
def test_changed_byte_is_refused_or_valid(call: dict[str, Any], data: st.DataObject) -> None:
    """One changed byte anywhere never raises anything but PayloadError."""
    encoded = bytearray(encode(**call))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PayloadError):
        decode(bytes(encoded))


def test_huge_announcement_allocates_nothing() -> None:
    """A header that announces 65,535 rows of 65,535 columns is refused by its length alone."""
    header = payload.HEADER.pack(payload.MAGIC, 1, 2, 2, 0xFFFF_FFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 3)
    with pytest.raises(PayloadError, match="does not hold"):
        decode(header)


def test_text_form() -> None:
    """Base64 text decodes to the same payload; other text is refused."""
    data = encode(**VECTORS["one-row-classifier"])
    assert payload.to_text(data) == base64.b64encode(data).decode()
    assert_array_equal(decode(payload.to_text(data)).cells, decode(data).cells)
    for text in ("%%%", "abc", "ä"):
        with pytest.raises(PayloadError, match="base64"):
            decode(text)


def test_decoded_arrays_are_read_only_views() -> None:
    """Nothing is copied, and nobody can write into what others read."""
    found = decode(encode(**VECTORS["sampled-regressor"]))
    for array in (found.cells, found.predictions, found.indices):
        assert array is not None
        assert not array.flags.writeable
        assert not array.flags.owndata


def test_long_ids_are_cut_between_characters() -> None:
    """An id keeps at most 256 bytes, and no half character."""
    cut = payload.cut_utf8("ä" * 200)
    assert len(cut) == 256
    assert cut.decode() == "ä" * 128
    assert payload.cut_utf8("x" + "ä" * 200).decode() == "x" + "ä" * 127


def test_unknown_version_names_the_known_one() -> None:
    """The message says what this release reads."""
    data = bytearray(encode(**VECTORS["answers-only"]))
    data[1] = 2
    with pytest.raises(PayloadError, match="version 2 is unknown; this release reads version 1"):
        decode(bytes(data))


def test_category_code_is_stable() -> None:
    """Codes are part of the wire format: reference profiles hold them."""
    assert category_code("UA", b"mlspan") == 1116133425
    assert category_code("", b"mlspan") != 0
    assert category_code("UA", b"other") != category_code("UA", b"mlspan")
    assert category_code("a\ud800", b"k") == category_code("a?", b"k")
    assert category_code("x", b"k" * 100) > 0


def test_documented_example() -> None:
    """The worked example of docs/payload.md runs, and its layout names every field's place."""
    text = (ROOT / "docs" / "payload.md").read_text()
    failures, tests = doctest.testfile(str(ROOT / "docs" / "payload.md"), module_relative=False)
    assert (failures, tests > 0) == (0, True)
    assert struct.calcsize("<BBBBIHHHHBxxx") == payload.HEADER.size == 20
    for field in ("magic", "version", "prediction kind", "score kind", "rows of the call", "flags"):
        assert field in text
