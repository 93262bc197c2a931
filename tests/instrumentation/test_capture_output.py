"""Capture of results: classes, probabilities, scores and numbers of the captured rows."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.ensemble import IsolationForest, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from mlspan.capture import Classes, Input, Output, capture_output, classes_of
from mlspan.classes import MAX_CLASSES
from mlspan.payload import (
    PREDICTION_CLASS,
    PREDICTION_NONE,
    PREDICTION_NUMBER,
    SCORE_NONE,
    SCORE_PROBABILITY,
    SCORE_RAW,
)
from tests.instrumentation.inputs import capture


def _classes(values: Any) -> Classes:
    classes = classes_of(SimpleNamespace(classes_=values))
    assert classes is not None
    return classes


def _rows(rows: int) -> Input:
    return capture(np.zeros((rows, 1)))


def _output(operation: str, result: Any, classes: Any = None, rows: int | None = None, **more: Any) -> Output:
    known = None if classes is None else _classes(classes)
    return capture_output(operation, result, _rows(len(result) if rows is None else rows), known, **more)


LATE = np.array(["late", "on time"])


@pytest.mark.parametrize(
    ("classes", "labels", "result", "expected"),
    [
        (LATE, ("late", "on time"), np.array(["on time", "late", "early"]), [1, 0, -1]),
        (LATE, ("late", "on time"), np.array(["on time", None, 3], object), [1, -1, -1]),
        (LATE.astype(object), ("late", "on time"), ["late", "on time"], [0, 1]),
        (np.array([0, 1, 5]), ("0", "1", "5"), np.array([5, 0, 2, 1]), [2, 0, -1, 1]),
        (np.array([0, 1, 5]), ("0", "1", "5"), np.arange(12) % 7, [0, 1, -1, -1, -1, 2, -1, 0, 1, -1, -1, -1]),
        (np.array([0, 1]), ("0", "1"), np.array([0.0, 1, np.nan] * 4), [0, 1, -1] * 4),
        (np.array([1.5, 2.0]), ("1.5", "2.0"), np.array([2.0, 1.5]), [1, 0]),
        (np.array([False, True]), ("False", "True"), np.array([True, False]), [1, 0]),
        (np.array([3, 1, 2]), ("3", "1", "2"), np.array([1, 2, 3] * 5), [1, 2, 0] * 5),
        (np.array([b"a", b"b"]), ("a", "b"), np.array([b"b"]), [1]),
        (np.array([0, 1]), ("0", "1"), pd.Series([1, 0]), [1, 0]),
        (np.array([0, 1]), ("0", "1"), pd.DataFrame([1, 0]), [1, 0]),
        (np.array([0, 1]), ("0", "1"), pl.Series([1, 0]), [1, 0]),
        (np.array([0, 1]), ("0", "1"), np.array([[1], [0]]), [1, 0]),
    ],
)
def test_predicted_classes(classes: Any, labels: tuple[str, ...], result: Any, expected: list[int]) -> None:
    """Predictions are indices into the class texts, -1 for what is none of them, in every dtype and container."""
    assert _classes(classes).labels == labels
    output = _output("predict", result, classes)
    assert output.prediction_kind == PREDICTION_CLASS
    assert output.predictions is not None
    assert output.predictions.dtype == np.dtype("<i4")
    assert output.predictions.tolist() == [[index] for index in expected]
    assert (output.score_kind, output.scores) == (SCORE_NONE, None)


def test_one_row_class() -> None:
    """A call of one row says the class in words; an unknown one is not repeated."""
    output = _output("predict", np.array(["on time"]), LATE)
    assert (output.value, output.score) == ("on time", None)
    assert output.predictions is not None
    assert output.predictions.tolist() == [[1]]
    output = _output("predict", np.array(["secret"]), LATE)
    assert output.value is None
    assert output.predictions is not None
    assert output.predictions.tolist() == [[-1]]


def test_only_captured_rows() -> None:
    """Answers are those of the sampled rows."""
    captured = capture(np.arange(5_000.0).reshape(-1, 1))
    output = capture_output("predict", np.arange(5_000.0), captured, None)
    assert captured.cells is not None
    assert output.predictions is not None
    assert_array_equal(output.predictions, captured.cells)
    classes = _classes(np.arange(2))
    output = capture_output("predict_proba", np.tile([[0.25, 0.75]], (5_000, 1)), captured, classes)
    assert output.scores is not None
    assert output.scores.shape == (len(captured.cells), 2)


def test_numbers() -> None:
    """Regressions are float32 numbers; one row says its number, unless it is none."""
    output = _output("predict", np.array([1.5]))
    assert (output.prediction_kind, output.value) == (PREDICTION_NUMBER, 1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, shown in ((np.nan, None), (np.inf, None), (1e300, 1e300), (np.int64(3), 3.0), (True, 1.0)):
            output = _output("predict", np.array([number]))
            assert output.value == shown
            assert output.predictions is not None
            assert output.predictions.shape == (1, 1)
            assert output.predictions.dtype == np.dtype("<f4")
    output = _output("predict", np.array([[1.0, 2], [3, 4]]))
    assert output.predictions is not None
    assert output.predictions.tolist() == [[1, 2], [3, 4]]
    assert output.value is None
    output = _output("predict", np.array([1, 2.5], object))
    assert output.predictions is not None
    assert output.predictions.tolist() == [[1], [2.5]]
    output = _output("predict", np.zeros((2, 100)))
    assert output.predictions is not None
    assert output.predictions.shape == (2, 64)


def test_mean_of_a_tuple() -> None:
    """predict(X, return_std=True) answers a tuple; its first part is the prediction."""
    X = np.random.default_rng(0).random((5, 2))
    model = BayesianRidge().fit(X, X[:, 0])
    output = capture_output("predict", model.predict(X, return_std=True), _rows(5), None)
    assert output.predictions is not None
    assert_allclose(output.predictions[:, 0], model.predict(X), rtol=1e-6)


def test_probabilities() -> None:
    """The likeliest class is the prediction, its probability the score."""
    output = _output("predict_proba", np.array([[0.25, 0.75]]), LATE)
    assert (output.value, output.score, output.score_kind) == ("on time", 0.75, SCORE_PROBABILITY)
    assert output.scores is not None
    assert output.scores.tolist() == [[0.25, 0.75]]
    output = _output("predict_proba", np.array([[0.75, 0.25], [0.5, 0.5], [np.nan, 1]]), LATE)
    assert output.predictions is not None
    assert output.predictions.tolist() == [[0], [0], [-1]]
    assert (output.value, output.score) == (None, None)
    logs = _output("predict_log_proba", np.log([[0.25, 0.75]]), LATE)
    assert logs.scores is not None
    assert_allclose(logs.scores, [[0.25, 0.75]])
    assert logs.value == "on time"
    assert logs.score == pytest.approx(0.75)
    single = _output("predict_proba", np.array([0.75, 0.125]), LATE)
    assert single.scores is not None
    assert single.scores.tolist() == [[0.25, 0.75], [0.875, 0.125]]
    missing = _output("predict_proba", np.array([[np.nan, np.nan]]), LATE)
    assert (missing.value, missing.score) == (None, None)


def test_many_classes() -> None:
    """Of more than 64 classes only the highest probability is kept."""
    random = np.random.default_rng(0).random((3, 100))
    output = _output("predict_proba", random, np.arange(100))
    assert output.scores is not None
    assert_allclose(output.scores, random.max(axis=1, keepdims=True), rtol=1e-6)
    assert output.predictions is not None
    assert_array_equal(output.predictions[:, 0], random.argmax(axis=1))


def test_probabilities_seen_within_predict() -> None:
    """Where predict asked for probabilities, they go along, and the score is that of the predicted class."""
    proba = np.array([[0.75, 0.25]])
    output = _output("predict", np.array(["on time"]), LATE, probabilities=proba)
    assert (output.value, output.score, output.score_kind) == ("on time", 0.25, SCORE_PROBABILITY)
    for unfit in (proba[:, :1], proba.tolist(), None, np.tile(proba, (2, 1))):
        output = _output("predict", np.array(["on time"]), LATE, probabilities=unfit)
        assert (output.score_kind, output.scores, output.score) == (SCORE_NONE, None, None)


def test_decision_functions() -> None:
    """The sign or the largest score is the class, the scores are raw; without classes the number is the answer."""
    output = _output("decision_function", np.array([-1.5, 2]), LATE)
    assert (output.prediction_kind, output.score_kind) == (PREDICTION_CLASS, SCORE_RAW)
    assert output.predictions is not None
    assert output.predictions.tolist() == [[0], [1]]
    assert output.scores is not None
    assert output.scores.tolist() == [[-1.5], [2]]
    output = _output("decision_function", np.array([[1.0, 3, 2]]), np.arange(3))
    assert (output.value, output.score) == ("1", None)
    output = _output("decision_function", np.array([1.5]))
    assert (output.prediction_kind, output.value) == (PREDICTION_NONE, 1.5)
    pairs = _output("decision_function", np.zeros((2, 6)), np.arange(4))  # one against one
    assert (pairs.prediction_kind, pairs.score_kind) == (PREDICTION_NONE, SCORE_RAW)


@pytest.mark.parametrize(
    "make",
    [
        lambda svm: svm,
        lambda svm: make_pipeline(StandardScaler(), svm),
        lambda svm: GridSearchCV(svm, {"C": [1.0]}, cv=2),
        lambda svm: StackingClassifier([("tree", DecisionTreeClassifier())], svm, cv=2),
    ],
    ids=["plain", "pipeline", "search", "stack"],
)
def test_scores_of_pairs_are_no_class(make: Callable[[Any], Any]) -> None:
    """Three classes have three pairs: their raw scores name no class, of many rows or of one."""
    X, y = make_classification(60, 6, n_informative=4, n_classes=3, random_state=0)
    model = make(SVC(decision_function_shape="ovo")).fit(X, y)
    for rows in (60, 1):
        scores = model.decision_function(X[:rows])
        output = capture_output("decision_function", scores, _rows(rows), classes_of(model))
        assert (output.prediction_kind, output.value, output.score_kind) == (PREDICTION_NONE, None, SCORE_RAW)
        assert output.scores is not None
        assert_allclose(output.scores, scores, rtol=1e-6)


@pytest.mark.parametrize("operation", ["predict", "decision_function", "score_samples"])
@pytest.mark.parametrize("result", [np.array(1.5), np.float64(1.5)])
def test_without_dimensions(operation: str, result: Any) -> None:
    """A single number of numpy answers one row, and no more."""
    output = _output(operation, result, rows=1)
    assert output.value == 1.5
    assert _output(operation, result, rows=2).value is None
    assert _output("predict", np.array("late"), LATE, rows=1).value == "late"


def test_score_samples_and_clusters() -> None:
    """Densities and cluster numbers are numbers."""
    output = _output("score_samples", np.array([-1.5]))
    assert (output.prediction_kind, output.value) == (PREDICTION_NUMBER, -1.5)
    output = _output("fit_predict", np.array([0, 2, -1]))
    assert output.predictions is not None
    assert output.predictions.tolist() == [[0], [2], [-1]]
    assert output.prediction_kind == PREDICTION_NUMBER


def test_mixture_components_are_numbers() -> None:
    """A mixture's probabilities are of components, which are numbers and no classes."""
    X = np.random.default_rng(0).normal(size=(50, 2))
    model = GaussianMixture(2, random_state=0).fit(X)
    output = capture_output("predict_proba", model.predict_proba(X), _rows(50), classes_of(model))
    assert (output.prediction_kind, output.score_kind) == (PREDICTION_NUMBER, SCORE_PROBABILITY)
    assert output.predictions is not None
    assert_array_equal(output.predictions[:, 0], model.predict(X))
    one = capture_output("predict_proba", model.predict_proba(X[:1]), _rows(1), None)
    assert one.value == float(model.predict(X[:1])[0])


def test_outlier_detectors_have_two_classes() -> None:
    """-1 and 1 are classes where the model's task says so."""
    X = np.random.default_rng(0).normal(size=(50, 2))
    model = IsolationForest(n_estimators=5, random_state=0).fit(X)
    assert classes_of(model) is None
    classes = classes_of(model, "outlier_detection")
    assert classes is not None
    assert classes.labels == ("-1", "1")
    predicted = capture_output("predict", model.predict(X), _rows(50), classes).predictions
    decided = capture_output("decision_function", model.decision_function(X), _rows(50), classes).predictions
    assert predicted is not None
    assert decided is not None
    assert_array_equal(predicted, decided)


@pytest.mark.parametrize("classes", [2, 3])
def test_agrees_with_scikit_learn(classes: int) -> None:
    """predict, predict_proba and decision_function of real classifiers give the same classes."""
    X, y = make_classification(60, 6, n_informative=4, n_classes=classes, random_state=0)
    for model in (LogisticRegression().fit(X, y), SVC().fit(X, y)):
        known = classes_of(model)
        expected = capture_output("predict", model.predict(X), _rows(60), known).predictions
        for operation in ("decision_function", "predict_proba", "predict_log_proba"):
            if hasattr(model, operation):
                output = capture_output(operation, getattr(model, operation)(X), _rows(60), known)
                assert output.predictions is not None
                assert expected is not None
                assert_array_equal(output.predictions, expected)


def test_several_outputs() -> None:
    """A forest over two outputs: one list of classes for both, an index and the top probability for each."""
    random = np.random.default_rng(0)
    X = random.random((40, 3))
    y = np.stack([random.choice(["a", "b"], 40), random.choice(["b", "c"], 40)], axis=1)
    model = RandomForestClassifier(5, random_state=0).fit(X, y)
    classes = classes_of(model)
    assert classes is not None
    assert (classes.labels, classes.outputs) == (("a", "b", "c"), 2)
    predicted = model.predict(X)
    output = capture_output("predict", predicted, _rows(40), classes)
    assert output.predictions is not None
    assert [[classes.labels[at] for at in row] for row in output.predictions] == predicted.tolist()
    probabilities = model.predict_proba(X)
    both = capture_output("predict_proba", probabilities, _rows(40), classes)
    assert both.predictions is not None
    assert_array_equal(both.predictions, output.predictions)
    assert both.scores is not None
    assert_allclose(both.scores, np.stack([part.max(axis=1) for part in probabilities], axis=1), rtol=1e-6)
    with np.errstate(divide="ignore"):
        logs = capture_output("predict_log_proba", model.predict_log_proba(X), _rows(40), classes)
    assert logs.scores is not None
    assert_allclose(logs.scores, both.scores, rtol=1e-5)


def test_indicators_of_labels_are_numbers() -> None:
    """Multilabel indicators are a column of 0 and 1 per label, and their probabilities go along without a class."""
    X, y = make_multilabel_classification(40, 5, n_classes=3, random_state=0)
    model = OneVsRestClassifier(LogisticRegression()).fit(X, y)
    classes = classes_of(model)
    output = capture_output("predict", model.predict(X), _rows(40), classes)
    assert output.prediction_kind == PREDICTION_NUMBER
    assert output.predictions is not None
    assert_array_equal(output.predictions, model.predict(X))
    sparse = capture_output("predict", sp.csr_array(model.predict(X)), _rows(40), classes)
    assert sparse.predictions is None


@pytest.mark.parametrize(
    "result",
    [None, 3, "text", object(), [], [[1], [2, 3]], np.zeros(3), np.zeros((2, 2, 2)), np.array(1.0), (), {"a": 1},
     np.array(["x", "y"]), np.array([1j, 2]), iter([1, 2])],
)  # fmt: skip
def test_results_that_are_none(result: Any) -> None:
    """Results of another length, kind or type are not captured, and nothing is raised."""
    for operation in ("predict", "predict_proba", "decision_function", "score_samples", "predict_log_proba"):
        output = capture_output(operation, result, _rows(2), None)
        assert output.prediction_kind == PREDICTION_NONE or output.predictions is not None
        if operation == "predict":
            assert (output.predictions, output.scores, output.value, output.score) == (None, None, None, None)


def test_other_operations_have_no_answer() -> None:
    """The result of transform is no prediction."""
    assert _output("transform", np.zeros((2, 2))).predictions is None


class Unreadable:
    """A model whose classes cannot be read."""

    @property
    def classes_(self) -> Any:
        """Fails."""
        raise RuntimeError


@pytest.mark.parametrize(
    "model",
    [object(), Unreadable(), SimpleNamespace(classes_=3), SimpleNamespace(classes_=[]),
     SimpleNamespace(classes_=np.zeros((2, 2))), SimpleNamespace(classes_=np.arange(MAX_CLASSES + 1)),
     SimpleNamespace(classes_={"a": 1})],
)  # fmt: skip
def test_models_without_classes(model: Any) -> None:
    """What has no list of classes, or too long a one, has none."""
    assert classes_of(model) is None


def test_result_is_not_kept() -> None:
    """Captured answers are copies."""
    result = np.random.default_rng(0).random((10, 2)).astype("<f4")
    for operation in ("predict", "predict_proba", "decision_function"):
        output = _output(operation, result, np.arange(2))
        for part in (output.predictions, output.scores):
            assert part is None or not np.shares_memory(part, result)


@given(
    hnp.arrays(
        st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes()),
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=5),
    ),
    st.sampled_from(["predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples"]),
    st.sampled_from([None, LATE, np.arange(3), np.array([0.5, 1.5])]),
)
def test_any_result_has_fitting_arrays(result: Any, operation: str, classes: Any) -> None:
    """Whatever a model answers, what is captured has one row per row, and kinds that agree with the arrays."""
    output = _output(operation, result, classes)
    assert (output.predictions is None) == (output.prediction_kind == PREDICTION_NONE)
    assert (output.scores is None) == (output.score_kind == SCORE_NONE)
    for part in (output.predictions, output.scores):
        assert part is None or (part.shape[0] == len(result) and part.shape[1] <= 64 and part.itemsize == 4)
