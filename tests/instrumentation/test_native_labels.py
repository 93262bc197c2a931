"""ONNX Runtime's sessions that answer a label beside numbers which do not add up to 1."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import mlspan
from mlspan.payload import PREDICTION_CLASS, PREDICTION_NONE, SCORE_NONE, SCORE_PROBABILITY
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.native_models import COLUMNS, data, one, onnx_model, session, value

CLASSES = ["a", "b", "c"]
X = data()[0]
WEIGHTS = np.random.default_rng(3).standard_normal((COLUMNS, len(CLASSES))).astype(np.float32)


def labelled(scores: str = "logits", choose: str = "ArgMax") -> Any:
    """A session that answers the position of the likeliest class (ArgMax) or another, and raw scores."""
    nodes = [helper.make_node("MatMul", ["x", "w"], [scores])]
    nodes.append(helper.make_node(choose, [scores], ["label"], axis=1, keepdims=0))
    initial = [helper.make_tensor("w", TensorProto.FLOAT, WEIGHTS.shape, WEIGHTS.ravel())]
    outputs = [value("label", TensorProto.INT64, None), value(scores, TensorProto.FLOAT, None, len(CLASSES))]
    return session(onnx_model(nodes, [value("x")], outputs, initial))


def softmax(logits: Any) -> Any:
    """The probabilities."""
    raised = np.exp(logits)
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scores", ["logits", "raw"])
def test_labels_and_logits(hooked: Recorder, scores: str) -> None:
    """Where classes are told: the label is the class, softmax its score; a run of the scores alone has both too."""
    model = mlspan.instrument_model(labelled(scores), classes=CLASSES)
    for wanted in (None, [scores], None):
        logits = model.run(wanted, {"x": X})[-1]
        seen = one(hooked)
        assert seen.payload is not None
        assert seen.scope["ml.prediction.classes"] == ("a", "b", "c")
        assert (seen.payload.prediction_kind, seen.payload.score_kind) == (PREDICTION_CLASS, SCORE_PROBABILITY)
        assert seen.payload.predictions[:, 0].tolist() == logits.argmax(axis=1).tolist()
        np.testing.assert_allclose(seen.payload.scores, softmax(logits), rtol=1e-4)
    for wanted in (None, [scores]):
        logits = model.run(wanted, {"x": X[:1]})[-1]
        said = one(hooked).attributes
        assert said["ml.prediction.class"] == CLASSES[int(logits.argmax())]
        assert said["ml.prediction.score"] == pytest.approx(float(softmax(logits).max()), rel=1e-4)


def test_labels_and_logits_without_names(hooked: Recorder) -> None:
    """Logits by name beside the positions of the likeliest need no names."""
    _, logits = labelled().run(None, {"x": X})
    seen = one(hooked)
    assert seen.payload is not None
    assert seen.scope["ml.prediction.classes"] == ("0", "1", "2")
    np.testing.assert_allclose(seen.payload.scores, softmax(logits), rtol=1e-4)


def test_labels_and_other_numbers(hooked: Recorder) -> None:
    """Of numbers with another name that do not explain the label nothing is claimed; the label is the class."""
    model = mlspan.instrument_model(labelled("raw", "ArgMin"), classes=CLASSES)
    labels, _ = model.run(None, {"x": X})
    seen = one(hooked)
    assert seen.payload is not None
    assert (seen.payload.prediction_kind, seen.payload.score_kind) == (PREDICTION_CLASS, SCORE_NONE)
    assert seen.payload.predictions[:, 0].tolist() == labels.tolist()
    labelled("raw").run(None, {"x": X})
    seen = one(hooked)
    assert seen.payload is not None
    assert (seen.payload.prediction_kind, seen.payload.score_kind) == (PREDICTION_NONE, SCORE_NONE)


def test_a_label_that_is_not_the_likeliest(hooked: Recorder) -> None:
    """Logits by name stay scores where the session decides otherwise: its label is the prediction."""
    model = mlspan.instrument_model(labelled("logits", "ArgMin"), classes=CLASSES)
    labels, logits = model.run(None, {"x": X[:1]})
    seen = one(hooked)
    assert seen.attributes["ml.prediction.class"] == CLASSES[int(labels[0])]
    assert seen.attributes["ml.prediction.score"] == pytest.approx(float(softmax(logits)[0, labels[0]]), rel=1e-4)
