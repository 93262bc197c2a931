"""Calls in threads, tasks, replicas, and within other models."""

import asyncio
import threading
import warnings

import pytest
import torch
from torch import nn

import mlspan
from tests.instrumentation.conftest import Recorder
from tests.torch.models import Mlp, softmax_net

X = torch.arange(12.0).reshape(3, 4)


def test_threads(hooked: Recorder) -> None:
    """Calls of one model in several threads are a span each."""
    model = softmax_net()
    threads = [threading.Thread(target=lambda: [model(X) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hooked.names() == ["predict Sequential"] * 40


def test_asyncio(hooked: Recorder) -> None:
    """Each task's call lies below that task's span; a task started within a call is free after it."""
    model = softmax_net()
    tracer = hooked.provider.get_tracer("t")

    async def request(name: str) -> None:
        with tracer.start_as_current_span(name):
            await asyncio.sleep(0)
            model(X)
            await asyncio.sleep(0)
            model(X)

    async def main() -> None:
        await asyncio.gather(request("a"), request("b"))

    asyncio.run(main())
    spans = hooked.spans()
    parents = {span.context.span_id: span.name for span in spans if span.context}
    assert sorted(parents[span.parent.span_id] for span in spans if span.parent) == ["a", "a", "b", "b"]


def test_a_task_that_outlives_the_call_is_free(hooked: Recorder) -> None:
    """What a call started, and runs after it, makes spans of its own."""
    inner = softmax_net()

    class Starts(Mlp):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.task = asyncio.get_running_loop().create_task(later())
            return super().forward(x)

    async def later() -> None:
        inner(X)

    async def main() -> None:
        model = Starts().eval()
        model(X)
        await model.task

    asyncio.run(main())
    assert hooked.names() == ["predict Starts", "predict Sequential"]


def test_within_an_sklearn_estimator(hooked: Recorder) -> None:
    """A module that an estimator calls belongs to the estimator's span."""
    base = pytest.importorskip("sklearn.base")

    class Wrapped(base.ClassifierMixin, base.BaseEstimator):  # type: ignore[misc,name-defined]
        def fit(self, X: object, y: object = None) -> "Wrapped":
            self.module_ = softmax_net()
            self.classes_ = [0, 1, 2]
            return self

        def predict_proba(self, X: object) -> object:
            return self.module_(torch.as_tensor(X)).detach().numpy()

    model = Wrapped().fit(X.numpy())
    model.predict_proba(X.numpy())
    assert hooked.names() == ["fit Wrapped", "predict_proba Wrapped"]


def test_data_parallel(hooked: Recorder) -> None:
    """DataParallel stands for the model it holds; without GPUs it calls it."""
    model = Mlp().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.DataParallel(model)(X)
    model(X)
    first, second = hooked.spans()
    assert first.name == second.name == "predict Mlp"
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes["ml.model.version"] == second.attributes["ml.model.version"]


def test_replicas_are_no_roots(hooked: Recorder) -> None:
    """The copies that DataParallel calls in threads of its own are no spans."""
    model = Mlp().eval()
    replica = model._replicate_for_data_parallel()
    replica.hidden, replica.out = model.hidden, model.out
    replica(X)
    assert hooked.names() == []


def test_prediction_ids(hooked: Recorder) -> None:
    """A prediction context names the rows of a module's call as those of any model."""
    model = softmax_net()
    with mlspan.prediction_context(["a", "b", "c"]) as context:
        model(X)
    assert list(context.ids) == ["a", "b", "c"]
    with mlspan.prediction_context() as context:
        model(X[:1])
    assert len(context.ids) == 1
    with mlspan.prediction_context("order-1"):
        model(X[:1])
    assert (hooked.spans()[-1].attributes or {})["ml.prediction.id"] == "order-1"
