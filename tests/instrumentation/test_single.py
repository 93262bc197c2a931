"""The quick way for one row makes what the general way makes, byte for byte, or leaves the call to it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlspan.budget import ByteBudget
from mlspan.capture import capture_input, capture_output, classes_of, pack
from mlspan.captured import Input
from mlspan.config import Settings
from mlspan.single import answer_row

SETTINGS = Settings()
BINARY = classes_of(SimpleNamespace(classes_=np.array(["in time", "late"])))
NUMBERS = classes_of(SimpleNamespace(classes_=np.arange(64)))
MANY = classes_of(SimpleNamespace(classes_=np.arange(65)))


def _input(rows: int = 1) -> Input:
    x = np.random.default_rng(0).standard_normal((rows, 30))
    return capture_input(x, None, SETTINGS, ByteBudget())


@pytest.mark.parametrize(
    ("operation", "result", "classes"),
    [
        ("predict_proba", np.array([[0.25, 0.75]]), BINARY),
        ("predict_proba", np.array([[0.5, 0.5]], np.float32), BINARY),
        ("predict_proba", np.full((1, 64), 1 / 64), NUMBERS),
        ("predict", np.array(["late"]), BINARY),
        ("predict", np.array(["late"], object), BINARY),
        ("predict", np.array([63]), NUMBERS),
        ("predict", np.array([-12.5]), None),
        ("predict", np.array([1e-60]), None),
        ("predict", np.array([3.0], np.float32), None),
    ],
)
def test_equals_the_general_way(operation: str, result: Any, classes: Any) -> None:
    """Payload, answer and probability are those of capture_output and pack."""
    captured = _input()
    quick = answer_row(operation, result, captured, classes, SETTINGS.max_bytes, ByteBudget())
    output = capture_output(operation, result, captured, classes)
    assert quick is not None
    data, value, score = quick
    assert data == pack(captured, output, SETTINGS, ByteBudget())
    assert (value, score) == (output.value, output.score)
    assert type(value) is type(output.value)


@pytest.mark.parametrize("number", [1.5, np.nan, 1e300])
def test_a_row_of_several_types(number: float) -> None:
    """Numbers, counts, texts, categories, flags and dates of one row of a frame, in one step."""
    frame = pd.DataFrame({"number": [number], "count": [3], "text": ["a"], "flag": [True]})
    frame["category"] = pd.Categorical(["b"], ["a", "b"])
    frame["when"] = pd.to_datetime(["2020-01-01"])
    captured = capture_input(frame, None, SETTINGS, ByteBudget())
    assert captured.numbers is not None
    many = capture_input(pd.concat([frame, frame]), None, SETTINGS, ByteBudget())
    assert captured.schema == many.schema
    assert captured.cells is not None
    assert many.cells is not None
    assert captured.cells.view(np.uint32).tolist() == many.cells[:1].view(np.uint32).tolist()
    result = np.array([[0.25, 0.75]])
    quick = answer_row("predict_proba", result, captured, BINARY, SETTINGS.max_bytes, ByteBudget())
    if number > 1e38:  # infinite, as numpy has it
        assert quick is None
    else:
        assert quick is not None
        output = capture_output("predict_proba", result, captured, BINARY)
        assert quick[0] == pack(captured, output, SETTINGS, ByteBudget())


@pytest.mark.parametrize(
    ("operation", "result", "classes"),
    [
        ("predict_proba", np.array([[np.nan, 0.75]]), BINARY),
        ("predict_proba", np.array([[0.75, np.nan]]), BINARY),
        ("predict_proba", np.array([[-0.1, 1.1]]), BINARY),
        ("predict_proba", np.array([[0.2, 0.3, 0.5]]), BINARY),
        ("predict_proba", np.full((1, 65), 1 / 65), MANY),
        ("predict_proba", [[0.25, 0.75]], BINARY),
        ("predict_proba", np.array([[0.25, 0.75]]), None),
        ("predict", np.array(["never seen"]), BINARY),
        ("predict", np.array([[1.0]]), None),
        ("predict", np.array([np.nan]), None),
        ("predict", np.array([1e300]), None),
        ("predict", np.array([5]), None),
        ("decision_function", np.array([0.5]), BINARY),
        ("predict", np.array(["late", "late"]), BINARY),
        ("predict", np.array(1.5), None),
        ("predict_proba", np.array(0.5), BINARY),
    ],
)
def test_what_is_not_plain_is_left_to_the_general_way(operation: str, result: Any, classes: Any) -> None:
    """NaN, unknown classes, several outputs, huge numbers, other types and operations: no quick answer."""
    budget = ByteBudget()
    before = budget.allowance()
    assert answer_row(operation, result, _input(), classes, SETTINGS.max_bytes, budget) is None
    assert budget.allowance() == before


def test_a_payload_beyond_its_bounds_is_left_to_the_general_way() -> None:
    """Neither the span's bound nor the process's budget is passed by."""
    result = np.array([[0.25, 0.75]])
    assert answer_row("predict_proba", result, _input(), BINARY, 100, ByteBudget()) is None
    spent = ByteBudget(spans=1, limit_bytes=100)
    assert answer_row("predict_proba", result, _input(), BINARY, SETTINGS.max_bytes, spent) is None
