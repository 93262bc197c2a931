"""Classifiers with a decision threshold of their own: what their probabilities mean is what they predict."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlspan.payload import decode
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.spans import attributes_of, one, scope_of

X = np.random.default_rng(0).normal(size=(200, 3))
Y = np.where(X[:, 0] + np.random.default_rng(1).normal(size=200) > 0.8, "yes", "no")
MODELS = {
    "fixed": FixedThresholdClassifier(LogisticRegression(), threshold=0.2, pos_label="yes"),
    "first class": FixedThresholdClassifier(LogisticRegression(), threshold=0.95, pos_label="no"),
    "auto": FixedThresholdClassifier(LogisticRegression(), pos_label="yes"),
    "tuned": TunedThresholdClassifierCV(LogisticRegression(), scoring=make_scorer(f1_score, pos_label="yes")),
    "tuned for the first class": TunedThresholdClassifierCV(
        LogisticRegression(), scoring=make_scorer(f1_score, pos_label="no")
    ),
    "last step": make_pipeline(
        StandardScaler(), FixedThresholdClassifier(LogisticRegression(), threshold=0.2, pos_label="yes")
    ),
}


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_probabilities_mean_what_is_predicted(hooked: Recorder, model: Any, method: str) -> None:
    """The class on the span and in the payload is that of ``predict``, of one row and of many; the score is its own."""
    model.fit(X, Y)
    predicted = model.predict(X)
    hooked.spans()
    result = getattr(model, method)(X)
    span = one(hooked)
    labels = scope_of(span)["ml.prediction.classes"]
    payload = decode(attributes_of(span)["ml.payload"])
    rows = np.arange(len(X)) if payload.indices is None else payload.indices
    assert [labels[at] for at in payload.predictions[:, 0]] == predicted[rows].tolist()
    probabilities = np.exp(result) if method == "predict_log_proba" else result
    for at in range(20):
        getattr(model, method)(X[at : at + 1])
        found = attributes_of(one(hooked))
        assert found["ml.prediction.class"] == predicted[at]
        assert found["ml.prediction.score"] == pytest.approx(probabilities[at, labels.index(predicted[at])])


def test_thresholds_of_raw_scores(hooked: Recorder) -> None:
    """A threshold that is none of probabilities says nothing of these: the likeliest class is the answer."""
    model = FixedThresholdClassifier(
        LogisticRegression(), threshold=-1.5, pos_label="yes", response_method="decision_function"
    ).fit(X, Y)
    hooked.spans()
    row = X[:1]
    expected = model.classes_[model.predict_proba(row)[0].argmax()]
    hooked.spans()
    model.predict_proba(row)
    assert attributes_of(one(hooked))["ml.prediction.class"] == expected
