"""Models of other libraries, made from tiny random configurations: nothing is downloaded."""

import os
import warnings
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from tests.instrumentation.conftest import Recorder
from tests.torch.payloads import last

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _bert(**options: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=200, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, **options,
    )  # fmt: skip


def _ids() -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 200, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def test_text_classification(hooked: Recorder) -> None:
    """A transformers classifier: tokens in, the configuration's classes out, one span."""
    config = _bert(id2label={0: "bad", 1: "fair", 2: "good"}, label2id={"bad": 0, "fair": 1, "good": 2})
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        result = model(**_ids())
    seen = last(hooked)
    assert seen.span.name == "predict BertForSequenceClassification"
    assert seen.scope["ml.prediction.classes"] == ("bad", "fair", "good")
    assert seen.feature("length").tolist() == [4, 9, 9]
    assert seen.payload is not None
    torch.testing.assert_close(torch.tensor(seen.payload.scores), result.logits.softmax(-1), atol=1e-5, rtol=1e-4)
    assert not hooked.names()


def test_regression_and_multilabel(hooked: Recorder) -> None:
    """The configuration's kind of problem decides."""
    for problem, labels, task in (("regression", 1, "regression"), ("multi_label_classification", 4, "multilabel")):
        config = _bert(num_labels=labels, problem_type=problem)
        with torch.no_grad():
            transformers.BertForSequenceClassification(config).eval()(**_ids())
        seen = last(hooked)
        assert seen.scope["ml.model.task"] == task
        assert seen.payload is not None
        assert seen.payload.predictions.shape == (3, labels)


def test_encoder(hooked: Recorder) -> None:
    """Hidden states are an embedding."""
    with torch.no_grad():
        transformers.BertModel(_bert()).eval()(**_ids())
    seen = last(hooked)
    assert seen.scope["ml.model.task"] == "transformation"
    assert seen.payload is not None
    assert seen.payload.predictions.shape == (3, 16)


def test_vision_transformer(hooked: Recorder) -> None:
    """An image classifier of transformers."""
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        num_labels=4,
    )
    with torch.no_grad():
        transformers.ViTForImageClassification(config).eval()(pixel_values=torch.rand(2, 3, 16, 16))
    seen = last(hooked)
    assert seen.names[0] == "channel0.mean"
    assert len(seen.scope["ml.prediction.classes"]) == 4


def test_timm(hooked: Recorder) -> None:
    """A timm model says how many classes it has; without a head it is an embedding."""
    model = timm.create_model("resnet18", pretrained=False, num_classes=7).eval()
    with torch.no_grad():
        expected = model(torch.rand(2, 3, 32, 32)).softmax(-1)
    seen = last(hooked)
    assert seen.span.name == "predict ResNet"
    assert seen.payload is not None
    torch.testing.assert_close(torch.tensor(seen.payload.scores), expected, atol=1e-5, rtol=1e-4)
    model.reset_classifier(0)
    with torch.no_grad():
        model(torch.rand(2, 3, 32, 32))
    assert last(hooked).scope["ml.model.task"] == "transformation"


def test_torchvision(hooked: Recorder) -> None:
    """So is a classifier of torchvision."""
    models = pytest.importorskip("torchvision.models")
    with torch.no_grad():
        models.squeezenet1_1(num_classes=5).eval()(torch.rand(1, 3, 64, 64))
    seen = last(hooked)
    assert seen.scope["ml.prediction.classes"] == ("0", "1", "2", "3", "4")
    assert seen.attributes["ml.prediction.class"] in {"0", "1", "2", "3", "4"}
