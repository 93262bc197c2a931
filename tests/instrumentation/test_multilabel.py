"""Multilabel models: the names of their outputs on the scope, which outputs hold and how sure the model is in spans."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import mlspan
from mlspan.classes import MAX_OUTPUTS, Classes
from mlspan.payload import (
    PREDICTION_CLASS,
    PREDICTION_NONE,
    PREDICTION_NUMBER,
    SCORE_NONE,
    SCORE_PROBABILITY,
    SCORE_RAW,
    Payload,
    decode,
)
from tests.instrumentation.conftest import Recorder

X, Y = make_multilabel_classification(200, 6, n_classes=3, n_labels=2, random_state=1)
INDICES: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(5, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(5, random_state=0),
    "tree": lambda: DecisionTreeClassifier(max_depth=3, random_state=0),
    "neighbours": KNeighborsClassifier,
    "multi-output": lambda: MultiOutputClassifier(LogisticRegression()),
    "search": lambda: GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 3]}, cv=2),
}
"""Models with classes of their own for each output: predict gives indices of these."""
INDICATORS: dict[str, Callable[[], Any]] = {
    "network": lambda: MLPClassifier((8,), max_iter=2000, tol=1e-2, random_state=0),
    "one versus rest": lambda: OneVsRestClassifier(LogisticRegression()),
    "pipeline": lambda: make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression())),
}
"""Models that know their outputs only."""


def payload_of(hooked: Recorder) -> tuple[dict[str, Any], Payload]:
    """Scope attributes and payload of the last span."""
    span = hooked.spans()[-1]
    assert span.instrumentation_scope is not None
    data = (span.attributes or {})["ml.payload"]
    assert isinstance(data, bytes | str)
    return dict(span.instrumentation_scope.attributes or {}), decode(data)


def positive(found: Payload, labels: tuple[str, ...]) -> NDArray[Any]:
    """Which outputs hold."""
    if found.prediction_kind == PREDICTION_NUMBER:
        return found.predictions
    return np.asarray(found.predictions == labels.index("1"))


@pytest.mark.parametrize("name", [*INDICES, *INDICATORS])
def test_predictions(hooked: Recorder, name: str) -> None:
    """Every output's decision of every row; the outputs are named y0, y1, …"""
    made = {**INDICES, **INDICATORS}[name]
    model = made().fit(X, Y)
    said = model.predict(X[:20])
    scope, found = payload_of(hooked)
    assert scope["ml.model.task"] == "multilabel"
    assert scope["ml.prediction.outputs"] == ("y0", "y1", "y2")
    assert found.prediction_kind == (PREDICTION_CLASS if name in INDICES else PREDICTION_NUMBER)
    assert scope.get("ml.prediction.classes") == (("0", "1") if name in INDICES else None)
    assert np.array_equal(positive(found, ("0", "1")), said)


@pytest.mark.parametrize("name", INDICES)
def test_probabilities_of_classes(hooked: Recorder, name: str) -> None:
    """A list of arrays: the likelier class of each output, and its probability."""
    model = INDICES[name]().fit(X, Y)
    p = np.column_stack([part[:, 1] for part in model.predict_proba(X[:20])])
    _, found = payload_of(hooked)
    assert np.array_equal(positive(found, ("0", "1")), p > 0.5)
    assert found.score_kind == SCORE_PROBABILITY
    assert np.allclose(found.scores, np.maximum(p, 1 - p), atol=1e-6)


@pytest.mark.parametrize("name", INDICATORS)
@pytest.mark.parametrize("rows", [1, 20])
def test_probabilities_of_outputs(hooked: Recorder, name: str, rows: int) -> None:
    """A matrix: each output's probability, and whether it is above one half; not the likeliest output."""
    model = INDICATORS[name]().fit(X, Y)
    p = model.predict_proba(X[:rows])
    _, found = payload_of(hooked)
    assert (found.prediction_kind, found.score_kind) == (PREDICTION_NUMBER, SCORE_PROBABILITY)
    assert np.array_equal(found.predictions, p > 0.5)
    assert np.allclose(found.scores, p, atol=1e-6)


def test_chain(hooked: Recorder) -> None:
    """A chain predicts indices of classes and answers probabilities as a matrix."""
    model = ClassifierChain(LogisticRegression()).fit(X, Y)
    said = model.predict(X[:20])
    assert np.array_equal(positive(payload_of(hooked)[1], ("0", "1")), said)
    p = model.predict_proba(X[:20])
    _, found = payload_of(hooked)
    assert np.array_equal(found.predictions, p > 0.5)
    assert np.allclose(found.scores, p, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 20])
def test_raw_scores_of_outputs(hooked: Recorder, rows: int) -> None:
    """A ridge classifier's scores are of outputs, of which several may hold: they name no class."""
    model = make_pipeline(StandardScaler(), RidgeClassifier()).fit(X, Y)
    scores = model.decision_function(X[:rows])
    scope, found = payload_of(hooked)
    assert (scope["ml.model.task"], scope["ml.prediction.outputs"]) == ("multilabel", ("y0", "y1", "y2"))
    assert (found.prediction_kind, found.score_kind) == (PREDICTION_NONE, SCORE_RAW)
    assert np.allclose(found.scores, scores, atol=1e-6)
    said = model.predict(X[:rows])
    _, found = payload_of(hooked)
    assert found.prediction_kind == PREDICTION_NUMBER
    assert np.array_equal(found.predictions, said)


def test_probabilities_that_predict_asked_for_itself(hooked: Recorder) -> None:
    """A forest's predict asks for its probabilities: they travel beside the predictions."""
    model = RandomForestClassifier(5, random_state=0).fit(X, Y)
    model.predict(X[:20])
    _, found = payload_of(hooked)
    p = np.column_stack([part[:, 1] for part in model.predict_proba(X[:20])])
    assert found.score_kind == SCORE_PROBABILITY
    assert np.allclose(found.scores, np.maximum(p, 1 - p), atol=1e-6)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "b"), ("a", "a", "b")])
def test_outputs_are_called_as_the_user_says(hooked: Recorder, names: tuple[str, ...]) -> None:
    """`instrument_model(classes=…)` names them, where there is one name for each."""
    model = mlspan.instrument_model(MultiOutputClassifier(LogisticRegression()).fit(X, Y), classes=names)
    model.predict(X[:5])
    scope, _ = payload_of(hooked)
    assert scope["ml.prediction.outputs"] == (names if names == ("a", "b", "c") else ("y0", "y1", "y2"))


class Tagger:
    """A class of the user's own."""

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """0 and 1 for each output."""
        return (x[:, :3] > 0).astype(int)


def test_a_model_that_says_nothing_of_itself(hooked: Recorder) -> None:
    """The user says that it is multilabel, and what its outputs are."""
    model = mlspan.instrument_model(Tagger(), name="tags", task="multilabel", classes=["a", "b", "c"])
    said = model.predict(X[:5])
    scope, found = payload_of(hooked)
    assert scope["ml.prediction.outputs"] == ("a", "b", "c")
    assert (found.prediction_kind, found.score_kind) == (PREDICTION_NUMBER, SCORE_NONE)
    assert np.array_equal(found.predictions, said)


def test_several_numbers_and_several_classes_have_no_such_outputs(hooked: Recorder) -> None:
    """A regression with several outputs, and outputs with more classes than two, are no decisions of yes or no."""
    RandomForestRegressor(3).fit(X, Y.astype(float)).predict(X[:5])
    assert "ml.prediction.outputs" not in payload_of(hooked)[0]
    RandomForestClassifier(3).fit(X, Y + np.array([0, 1, 0])).predict(X[:5])
    assert "ml.prediction.outputs" not in payload_of(hooked)[0]


def test_a_network_of_several_classes_is_a_classifier(hooked: Recorder) -> None:
    """Its outputs are the classes of one answer."""
    x, y = load_iris(return_X_y=True)
    model = MLPClassifier((8,), max_iter=2000, tol=1e-2, random_state=0).fit(x, y)
    said = model.predict(x[:20])
    scope, found = payload_of(hooked)
    assert scope["ml.model.task"] == "classification"
    assert scope["ml.prediction.classes"] == ("0", "1", "2")
    assert found.predictions[:, 0].tolist() == said.tolist()


def test_more_outputs_than_a_span_carries() -> None:
    """They have no names: labels are not for them."""
    assert Classes.of_outputs(MAX_OUTPUTS, None).names == tuple(f"y{k}" for k in range(MAX_OUTPUTS))
    assert Classes.of_outputs(MAX_OUTPUTS + 1, None).names == ()
    assert Classes.of_outputs(1, ["a"]).names == ()
