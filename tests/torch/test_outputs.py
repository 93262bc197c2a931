"""What is captured of a module's output: which form it has, and how that is decided."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import mlspan
from mlspan.payload import PREDICTION_CLASS, PREDICTION_NONE, PREDICTION_NUMBER, SCORE_NONE, SCORE_PROBABILITY
from tests.instrumentation.conftest import Recorder
from tests.torch.models import Answers, softmax_net
from tests.torch.payloads import Seen, last

X = torch.ones(3, 4)
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.5]])
PROBABILITIES = LOGITS.softmax(-1)


def ask(recorder: Recorder, answer: Any, rows: int = 3, **told: Any) -> Seen:
    """The span of a call that is answered so."""
    model = Answers(answer).eval()
    if told:
        mlspan.instrument_model(model, **told)
    model(X[:rows])
    return last(recorder)


def is_classes(seen: Seen, expected: torch.Tensor, classes: tuple[str, ...]) -> bool:
    """Whether the span tells these probabilities of these classes."""
    assert seen.payload is not None
    assert seen.scope["ml.prediction.classes"] == classes
    assert seen.scope["ml.model.task"] == "classification"
    assert (seen.payload.prediction_kind, seen.payload.score_kind) == (PREDICTION_CLASS, SCORE_PROBABILITY)
    assert seen.payload.predictions[:, 0].tolist() == expected.argmax(-1).tolist()
    return bool(np.allclose(seen.payload.scores, expected, atol=1e-6))


def test_probabilities(hooked: Recorder) -> None:
    """Rows of numbers from 0 to 1 that add up to 1 are probabilities; their classes are numbered."""
    seen = ask(hooked, PROBABILITIES)
    assert is_classes(seen, PROBABILITIES, ("0", "1", "2"))
    entropy = -(PROBABILITIES * PROBABILITIES.log()).sum(1).mean().item()
    assert seen.attributes["ml.prediction.entropy"] == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize("calls", [1, 2])
def test_one_row(hooked: Recorder, calls: int) -> None:
    """One row says its answer in words too, at the first call and at later ones."""
    model = softmax_net()
    with torch.no_grad():
        for _ in range(calls):
            expected = model(X[:1])
    seen = last(hooked)
    best = int(expected.argmax())
    assert is_classes(seen, expected, ("0", "1", "2"))
    assert seen.attributes["ml.prediction.class"] == str(best)
    assert seen.attributes["ml.prediction.score"] == pytest.approx(expected[0, best].item())
    entropy = -(expected * expected.log()).sum().item()
    assert seen.attributes["ml.prediction.entropy"] == pytest.approx(entropy, rel=1e-5)


class Squeezed(nn.Module):
    """Answers without the dimension of one output, and of one row."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A number for each row."""
        return self.out(x).squeeze()


@pytest.mark.parametrize("first", [1, 3])
def test_one_row_squeezed(hooked: Recorder, first: int) -> None:
    """What squeeze() leaves of one row is that row's number, at the first call and after one of many rows."""
    model = Squeezed().eval()
    with torch.no_grad():
        for rows in (first, 1):
            expected = model(torch.randn(rows, 4))
    seen = last(hooked)
    assert expected.dim() == 0
    assert seen.payload is not None
    assert (seen.payload.prediction_kind, seen.payload.predictions.tolist()) == (PREDICTION_NUMBER, [[expected.item()]])
    assert seen.attributes["ml.prediction.value"] == pytest.approx(expected.item())
    assert "ml.capture.error" not in seen.attributes


def test_one_row_squeezed_of_two_classes(hooked: Recorder) -> None:
    """The probability of the second class without dimensions tells the class of one row."""
    seen = ask(hooked, torch.tensor(0.8), 1, classes=["no", "yes"])
    assert seen.attributes["ml.prediction.class"] == "yes"
    assert seen.attributes["ml.prediction.score"] == pytest.approx(0.8)


def test_numbers_without_dimensions(hooked: Recorder) -> None:
    """They are no answer to several rows, nor beside others; under a name that says so they are one of one row."""
    seen = ask(hooked, torch.tensor(0.8))
    assert seen.payload is not None
    assert seen.payload.prediction_kind == PREDICTION_NONE
    loss, scores = torch.tensor(0.3), torch.tensor([[1.5]])
    assert ask(hooked, (loss, scores), 1).attributes["ml.prediction.value"] == 1.5
    assert "ml.prediction.value" not in ask(hooked, (loss,), 1).attributes
    assert ask(hooked, {"loss": loss, "scores": torch.tensor(2.5)}, 1).attributes["ml.prediction.value"] == 2.5


def test_log_probabilities(hooked: Recorder) -> None:
    """So are their logarithms."""
    assert is_classes(ask(hooked, PROBABILITIES.log()), PROBABILITIES, ("0", "1", "2"))
    assert is_classes(ask(hooked, PROBABILITIES[:1].log(), 1), PROBABILITIES[:1], ("0", "1", "2"))


def test_numbers_by_default(hooked: Recorder) -> None:
    """Other numbers are numbers: nothing says that they are logits."""
    seen = ask(hooked, LOGITS)
    assert seen.payload is not None
    assert seen.payload.prediction_kind == PREDICTION_NUMBER
    assert seen.payload.score_kind == SCORE_NONE
    assert np.array_equal(seen.payload.predictions, LOGITS)
    assert seen.scope["ml.model.task"] == "multilabel"
    assert "ml.prediction.classes" not in seen.scope


@pytest.mark.parametrize(
    "told",
    [{"output": "logits"}, {"task": "classification"}, {"classes": ["0", "1", "2"]}, {"classes": [0, 1, 2]}],
)
def test_logits_by_the_users_word(hooked: Recorder, told: dict[str, Any]) -> None:
    """The user says that outputs are logits, that it is a classification, or what the classes are."""
    assert is_classes(ask(hooked, LOGITS, **told), PROBABILITIES, ("0", "1", "2"))
    assert is_classes(ask(hooked, LOGITS[:1], 1, **told), PROBABILITIES[:1], ("0", "1", "2"))


def test_class_names(hooked: Recorder) -> None:
    """Names of classes go on the scope, and the answer of one row is one of them."""
    seen = ask(hooked, LOGITS[:1], 1, classes=["ship", "car", "plane"])
    assert seen.scope["ml.prediction.classes"] == ("ship", "car", "plane")
    assert seen.attributes["ml.prediction.class"] == "ship"


def test_setting(hook: Callable[..., Recorder]) -> None:
    """`torch_output` says it for all models; what a model was told of wins."""
    recorder = hook(torch_output="logits")
    assert is_classes(ask(recorder, LOGITS), PROBABILITIES, ("0", "1", "2"))
    seen = ask(recorder, LOGITS, output="values")
    assert seen.payload is not None
    assert seen.payload.prediction_kind == PREDICTION_NUMBER


@pytest.mark.parametrize("evidence", ["num_classes", "classifier", "Classifier", "logits", "log_softmax"])
def test_logits_by_what_the_model_says(hooked: Recorder, evidence: str) -> None:
    """A number of classes, a last child or class named so, or a field named logits: then outputs are logits."""
    if evidence == "log_softmax":
        chain = nn.Sequential(Answers(LOGITS), nn.Sequential(nn.Identity(), nn.LogSoftmax(-1))).eval()
        chain(X)
        assert is_classes(last(hooked), PROBABILITIES, ("0", "1", "2"))
        return
    kind = type("TinyClassifier", (Answers,), {}) if evidence == "Classifier" else Answers
    model = kind({"loss": torch.zeros(()), "logits": LOGITS} if evidence == "logits" else LOGITS).eval()
    if evidence == "num_classes":
        model.num_classes = 3
    elif evidence == "classifier":
        model.classifier = nn.Identity()
    model(X)
    assert is_classes(last(hooked), PROBABILITIES, ("0", "1", "2"))


def test_two_classes_in_one_column(hooked: Recorder) -> None:
    """One column of a classification is the second of two classes: a probability, or a logit out of range."""
    second = torch.tensor([[0.2], [0.9], [0.5]])
    both = torch.cat((1 - second, second), 1)
    names = ("no", "yes")
    for answer in (second, second.logit(), second[:, 0]):
        assert is_classes(ask(hooked, answer, classes=names), both, names)
    assert is_classes(ask(hooked, second[1:2].logit(), 1, task="classification"), both[1:2], ("0", "1"))


def test_multilabel(hooked: Recorder) -> None:
    """Several labels at once: 0 and 1 for each, with a probability of its own."""
    seen = ask(hooked, LOGITS * 4 - 4, task="multilabel")
    assert seen.payload is not None
    assert seen.payload.predictions.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert np.allclose(seen.payload.scores, (LOGITS * 4 - 4).sigmoid(), atol=1e-6)
    assert seen.scope["ml.model.task"] == "multilabel"
    assert seen.scope["ml.prediction.outputs"] == ("y0", "y1", "y2")
    assert "ml.prediction.classes" not in seen.scope
    seen = ask(hooked, LOGITS, task="multilabel", classes=("food", "music", "sport"))
    assert seen.scope["ml.prediction.outputs"] == ("food", "music", "sport")


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_regression(hooked: Recorder, shape: tuple[int, ...]) -> None:
    """One number a row is a regression; one row says it."""
    values = torch.tensor([0.1, 0.2, 0.7]).reshape(shape)
    seen = ask(hooked, values)
    assert seen.payload is not None
    assert np.array_equal(seen.payload.predictions, values.reshape(3, 1))
    assert seen.scope["ml.model.task"] == "regression"
    model = Answers(values[:1] + 1).eval()
    for _ in range(2):
        model(X[:1])
        assert last(hooked).attributes["ml.prediction.value"] == pytest.approx(1.1)


def test_labels(hooked: Recorder) -> None:
    """Whole numbers are numbers, or classes where their names are known; unknown ones are told apart."""
    seen = ask(hooked, torch.tensor([0, 2, 7]), classes=["a", "b", "c"])
    assert seen.payload is not None
    assert seen.payload.predictions[:, 0].tolist() == [0, 2, -1]
    assert ask(hooked, torch.tensor([1]), 1, classes=["a", "b"]).attributes["ml.prediction.class"] == "b"
    seen = ask(hooked, torch.tensor([4, 5, 6]))
    assert seen.payload is not None
    assert seen.payload.predictions[:, 0].tolist() == [4, 5, 6]


def test_embeddings(hooked: Recorder) -> None:
    """Wide outputs, and outputs of more dimensions, are embeddings: projected to 16 numbers."""
    for answer in (torch.randn(3, 200), torch.randn(3, 7, 5)):
        seen = ask(hooked, answer)
        assert seen.payload is not None
        assert seen.payload.predictions.shape == (3, 16)
        assert seen.scope["ml.model.task"] == "transformation"


class _Named(NamedTuple):
    features: torch.Tensor
    probs: torch.Tensor


@dataclass
class _Data:
    features: torch.Tensor
    predictions: torch.Tensor


@pytest.mark.parametrize(
    "answer",
    [
        (PROBABILITIES, torch.ones(3, 9)),
        [PROBABILITIES],
        {"x": torch.ones(()), "y": PROBABILITIES},
        {"features": torch.ones(3, 9), "probabilities": PROBABILITIES},
        _Named(torch.ones(3, 9), PROBABILITIES),
        _Data(torch.ones(3, 9), PROBABILITIES),
        (torch.ones(5, 2), PROBABILITIES),
    ],
)
def test_containers(hooked: Recorder, answer: Any) -> None:
    """Of several tensors the one with a telling name, else the first with a row for each of the input's."""
    assert is_classes(ask(hooked, answer), PROBABILITIES, ("0", "1", "2"))


def test_the_form_is_decided_once(hooked: Recorder) -> None:
    """A model's outputs keep their form for a version, whatever a later batch looks like."""
    model = Answers(PROBABILITIES).eval()
    model(X)
    last(hooked)
    model.answer = torch.full((3, 3), torch.nan)
    model(X)
    seen = last(hooked)
    assert seen.payload is not None
    assert seen.payload.score_kind == SCORE_PROBABILITY
    assert seen.payload.predictions[:, 0].tolist() == [-1, -1, -1]
    model.answer = torch.ones(3, 5)
    model(X)
    assert (last(hooked).payload or seen.payload).score_kind == SCORE_NONE


def test_many_classes(hooked: Recorder) -> None:
    """Of more than 64 classes the highest probability is kept, with the entropy of all."""
    logits = torch.randn(3, 100)
    seen = ask(hooked, logits, output="logits")
    assert seen.payload is not None
    assert np.allclose(seen.payload.scores[:, 0], logits.softmax(-1).max(1).values, atol=1e-6)
    assert seen.payload.predictions[:, 0].tolist() == logits.argmax(1).tolist()
    assert 0 < seen.attributes["ml.prediction.entropy"] < np.log(100)


def test_wrong_words(hooked: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """A word that is none of the valid ones is named, and the usual rules hold."""
    ask(hooked, LOGITS, output="logit")
    assert "'logit'" in caplog.text
    assert "log_probabilities" in caplog.text
