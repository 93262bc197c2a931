"""What the model is for, concluded from the columns or said; the message names --task where they leave it open."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlspan_processor import Analysis, analyze
from mlspan_processor.analysis import AnalysisError

ROWS = 200


def frame(**columns: Any) -> pd.DataFrame:
    """A feature, and these columns, from their values in turn."""
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=ROWS), **{name: np.resize(v, ROWS) for name, v in columns.items()}})


def result_of(data: pd.DataFrame, **options: Any) -> Analysis:
    """The analysis of a frame against itself."""
    return analyze(reference=data, current=data, **options)


@pytest.mark.parametrize(
    ("label", "said", "task", "classes"),
    [
        ([0, 1], [0, 1], "binary", ("0", "1")),
        ([-1, 1], [1, 1], "binary", ("-1", "1")),
        ([True, False], [True, True], "binary", ("False", "True")),
        (["no", "yes"], ["no", "no"], "binary", ("no", "yes")),
        ([0.0, 1.0, np.nan], [1, 0, 1], "binary", ("0", "1")),
        (["a", "b", "c"], ["a", "b", "b"], "multiclass", ("a", "b", "c")),
        ([1.5, 2.0], [1.0, 2.0], "regression", ()),
        (list(range(150)), list(range(150)), "regression", ()),
    ],
)
def test_inferred_from_values(label: list[Any], said: list[Any], task: str, classes: tuple[str, ...]) -> None:
    """Two values are two classes, texts are classes, fractions and many whole numbers are quantities."""
    result = result_of(frame(y=label, said=said), label="y", prediction="said")
    assert (result.task, result.classes) == (task, classes)
    assert result.inferred[0].startswith(f"task {task}: ")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"y": [1, 2, 3], "said": [1, 2, 3]}, {}, "Say --task multiclass or --task regression"),
        ({"y": [0, 1], "said": [0.2, 0.9]}, {}, "name the fractions with --probability"),
        ({"y": ["a", "b", "c"], "said": ["a", "b", "c"]}, {"task": "binary"}, "say --task multiclass"),
        ({"y": ["a", "b"], "said": ["a", "b"]}, {"task": "regression"}, "a regression needs numbers"),
        (
            {"y": [0, 1], "said": [0, 1]},
            {"task": "ranking"},
            "must be one of binary, multiclass, multilabel, regression",
        ),
        ({"y": [f"c{i}" for i in range(200)], "said": ["c1"]}, {"task": "binary"}, "200 classes"),
    ],
)
def test_what_cannot_be_concluded(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    """Ambiguous values and values that do not fit the task are errors that say what would do."""
    with pytest.raises(AnalysisError, match=message):
        result_of(frame(**columns), label="y", prediction="said", **options)


def test_one_probability_for_several_classes() -> None:
    """One column cannot be the probability of three classes."""
    with pytest.raises(AnalysisError, match=r"--probability CLASS=COL"):
        result_of(frame(y=["a", "b", "c"], p=[0.1, 0.9]), label="y", probability="p")


def test_the_named_class_is_the_positive_one() -> None:
    """Precision and recall are of the class that the only probability is named for, wherever it sorts."""
    data = frame(y=["bad", "good", "good", "good"], p=[0.9, 0.1, 0.2, 0.7])
    result = result_of(data, label="y", probability="bad=p")
    assert result.classes == ("good", "bad")
    assert result.windows[0].metrics["precision"].realised == 0.5
    assert result.windows[0].metrics["recall"].realised == 1.0
    unnamed = result_of(data, label="y", probability="p")
    assert unnamed.classes == ("bad", "good")
    assert any("the positive class is" in one for one in unnamed.inferred)
    assert any("a probability above 0.5" in one for one in unnamed.inferred)


def test_values_that_mean_the_same_are_one_class() -> None:
    """Labels as numbers, predictions as texts, the other file's as booleans: 1, "1.0" and True are one class."""
    reference = frame(y=[0, 1], said=["0", "1"], p=[0.2, 0.8])
    current = frame(y=[0.0, 1.0, np.nan, 1.0], said=[False, True], p=[0.2, 0.8])
    result = analyze(reference=reference, current=current, label="y", prediction="said", probability="1=p")
    assert result.classes == ("0", "1")
    metric = result.windows[0].metrics["accuracy"]
    assert (metric.realised, metric.labels) == (1.0, 150)


def test_without_a_model() -> None:
    """Features alone: no task, with the reason, no metrics, but drift."""
    result = result_of(frame())
    assert result.task is None
    assert result.to_dict()["reason"] == "no label, prediction or probability column was named"
    assert result.windows[0].metrics == {}
    assert result.windows[0].features["x"].drifted is False
    assert result.windows[0].prediction.reason.startswith("undecidable, because")


def test_a_class_that_only_the_current_file_has() -> None:
    """Of two classes a third value is no label; of several it is one more class."""
    two, three = frame(y=["a", "b"], said=["a", "b"]), frame(y=["a", "b", "c"], said=["a", "b", "b"])
    result = analyze(reference=two, current=three, label="y", prediction="said")
    assert result.classes == ("a", "b")
    assert result.windows[0].metrics["accuracy"].labels == 134
    assert any('unknown classes ("c") are not used: 66 of 200 rows' in note for note in result.notes)
    four = frame(y=["a", "b", "c", "d"], said=["a", "b", "c", "c"])
    result = analyze(reference=three, current=four, label="y", prediction="said")
    assert result.classes == ("a", "b", "c", "d")
    assert result.windows[0].metrics["accuracy"].realised == 0.75
