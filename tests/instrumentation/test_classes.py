"""The names of classes that the user tells, where the model does not know them or has codes for them."""

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression

import mlspan
from mlspan.payload import PREDICTION_CLASS, decode
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.spans import attributes_of, one, scope_of

Data = tuple[np.ndarray, np.ndarray]
ROWS = np.arange(12.0).reshape(6, 2)


class Rule:
    """A model without `classes_`, which answers one of two things."""

    def __init__(self, answers: tuple[Any, Any]) -> None:
        self.answers = answers

    def predict(self, rows: Any) -> Any:
        """The second answer for large numbers."""
        return np.array([self.answers[int(row[0] > 5)] for row in rows])

    def predict_proba(self, rows: Any) -> Any:
        """Surer of the second one."""
        return np.tile([0.25, 0.75], (len(rows), 1))


@pytest.mark.parametrize(
    ("answers", "classes"),
    [
        (("fine", "fraud"), ["fine", "fraud"]),
        ((0, 1), ["fine", "fraud"]),
        ((False, True), ["fine", "fraud"]),
        ((2, 1), ["2", "1"]),
        ((1.0, 0.0), [1, 0]),
        ((True, False), [True, False]),
    ],
)
@pytest.mark.parametrize("rows", [1, 6])
def test_a_model_without_classes(hooked: Recorder, answers: tuple[Any, Any], classes: list[Any], rows: int) -> None:
    """It answers with the names that were told, the numbers that these are, or their places."""
    model = mlspan.instrument_model(Rule(answers), name="rule", classes=classes)
    model.predict(ROWS[:rows])
    span = one(hooked)
    assert scope_of(span)["ml.model.task"] == "classification"
    assert scope_of(span)["ml.prediction.classes"] == tuple(map(str, classes))
    found = decode(attributes_of(span)["ml.payload"])
    assert found.prediction_kind == PREDICTION_CLASS
    assert found.predictions[:, 0].tolist() == [0, 0, 0, 1, 1, 1][:rows]


def test_probabilities_of_a_model_without_classes(hooked: Recorder) -> None:
    """The columns are the classes in the order that was told."""
    mlspan.instrument_model(Rule((0, 1)), name="rule", classes=["fine", "fraud"]).predict_proba(ROWS[:1])
    attributes = attributes_of(one(hooked))
    assert (attributes["ml.prediction.class"], attributes["ml.prediction.score"]) == ("fraud", 0.75)


def test_names_for_codes(hooked: Recorder, data: Data) -> None:
    """An estimator that was fitted on 0 and 1 answers with the names of these; more or fewer names are passed over."""
    model = LogisticRegression().fit(*data)
    hooked.spans()
    mlspan.instrument_model(model, classes=["fine", "fraud"])
    said = model.predict(data[0][:1])
    span = one(hooked)
    assert attributes_of(span)["ml.prediction.class"] == ["fine", "fraud"][int(said[0])]
    mlspan.instrument_model(model, classes=["fine", "odd", "fraud"]).predict(data[0][:1])
    assert scope_of(one(hooked))["ml.prediction.classes"] == ("0", "1")


def test_names_for_outliers(hooked: Recorder, data: Data) -> None:
    """An outlier detector's -1 and 1 have names, too."""
    model = mlspan.instrument_model(IsolationForest(n_estimators=3, random_state=0), classes=["odd", "fine"])
    said = model.fit(data[0]).predict(data[0])
    span = hooked.spans()[-1]
    assert scope_of(span)["ml.prediction.classes"] == ("odd", "fine")
    assert decode(attributes_of(span)["ml.payload"]).predictions[:, 0].tolist() == ((said + 1) // 2).tolist()


def test_a_regression_has_no_classes(hooked: Recorder) -> None:
    """What the user says the task is decides."""
    mlspan.instrument_model(Rule((1.5, 2.5)), task="regression", classes=["a", "b"]).predict(ROWS[:1])
    assert attributes_of(one(hooked))["ml.prediction.value"] == 1.5
