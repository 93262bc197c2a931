"""Spans in the application's own contexts: parents, samplers, threads, tasks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach, set_value
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlspan.payload import decode
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.spans import attributes_of, one, scope_of

Data = tuple[np.ndarray, np.ndarray]


Hook = Callable[..., Recorder]


def test_parent(hooked: Recorder, data: Data) -> None:
    """The span is below the current one, and is the current one within the call."""
    seen = []

    class Asks(RegressorMixin, BaseEstimator):
        def predict(self, X: Any) -> Any:
            seen.append(trace.get_current_span().get_span_context())
            return np.zeros(len(X))

    tracer = hooked.provider.get_tracer("test")
    with tracer.start_as_current_span("request") as request:
        Asks().predict(data[0])
        assert trace.get_current_span() is request
    span, _ = hooked.spans()
    assert span.parent == request.get_span_context()
    assert [span.context] == seen


def test_recursion(hooked: Recorder, data: Data) -> None:
    """An estimator that calls itself and others is one span; the next call is another."""

    class Deep(ClassifierMixin, BaseEstimator):
        def __init__(self, depth: int = 3) -> None:
            self.depth = depth

        def predict(self, X: Any) -> Any:
            if self.depth:
                return Deep(self.depth - 1).predict(X)
            return LogisticRegression().fit(*data).predict(X)

    Deep().predict(data[0])
    Deep().predict(data[0])
    assert hooked.names() == ["predict Deep"] * 2


def test_suppressed(hooked: Recorder, data: Data) -> None:
    """Nothing happens while instrumentation is suppressed, in joblib's threads neither; a fit is noticed still."""
    model = LogisticRegression().fit(*data)
    model.predict(data[0][:1])
    before = attributes_of(hooked.spans()[-1])["ml.model.version"]
    with suppress_instrumentation():
        model.set_params(C=0.01).fit(*data)
        RandomForestClassifier(4, n_jobs=2).fit(*data).predict(data[0])
    assert hooked.names() == []
    model.predict(data[0][:1])
    assert attributes_of(one(hooked))["ml.model.version"] != before


def test_sampled_out(hook: Hook, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that the sampler refuses is one decision for all nested calls, and no input is read again for it."""
    decisions = []

    class Counting(ParentBased):
        def should_sample(self, *args: Any, **kwargs: Any) -> Any:
            decisions.append(args[2])
            return super().should_sample(*args, **kwargs)

    recorder = hook(sampler=Counting(ALWAYS_OFF))
    model = make_pipeline(StandardScaler(), RandomForestClassifier(4, n_jobs=2)).fit(*data)
    model.predict(data[0])
    monkeypatch.setattr("mlspan.emit.capture_input", None)
    model.predict(data[0])
    name = "Pipeline(RandomForestClassifier)"
    assert decisions == [f"fit {name}", f"predict {name}", f"predict {name}"]
    assert recorder.names() == []


def test_sampling_by_ratio(hook: Hook, data: Data) -> None:
    """Under a ratio sampler every recorded span is complete, whatever happened to the calls between."""
    recorder = hook(sampler=TraceIdRatioBased(0.5))
    model = LogisticRegression().fit(*data)
    recorder.spans()
    for _ in range(60):
        model.predict(data[0][:1])
    spans = recorder.spans()
    assert 5 < len(spans) < 55
    for span in spans:
        assert decode(attributes_of(span)["ml.payload"]).cells.shape == (1, 4)
        assert scope_of(span)["ml.feature.names"] == ("x0", "x1", "x2", "x3")


def test_columns_change_while_sampled_out(hook: Hook, data: Data) -> None:
    """A payload never travels under a scope that describes other columns."""
    recorder = hook(sampler=TraceIdRatioBased(0.5))

    class Any2d(ClassifierMixin, BaseEstimator):
        def predict(self, X: Any) -> Any:
            return np.zeros(len(X), int)

    model = Any2d()
    for call in range(120):
        model.predict(data[0][:1, : 2 + call % 3])
    lacking = []
    for span in recorder.spans():
        attributes = attributes_of(span)
        if "ml.payload" in attributes:
            assert decode(attributes["ml.payload"]).cells.shape[1] == len(scope_of(span)["ml.feature.names"])
        else:
            lacking.append(attributes["ml.capture.error"])
    # Then it is clear that this model's columns change, and its calls are read before the sampler is asked.
    assert lacking == ["columns changed while calls were sampled out"] * 3


def test_threads(hooked: Recorder, data: Data) -> None:
    """Concurrent calls of one model in threads are spans of their own, each with its own rows."""
    model = RandomForestClassifier(4, n_jobs=2).fit(*data)
    hooked.spans()
    tracer = hooked.provider.get_tracer("test")

    def request(row: int) -> tuple[int, float]:
        with tracer.start_as_current_span("request") as span:
            model.predict(data[0][row : row + 1])
            return span.get_span_context().span_id, float(np.float32(data[0][row, 0]))

    with ThreadPoolExecutor(8) as pool:
        expected = dict(pool.map(request, range(40)))
    predictions = [span for span in hooked.spans() if span.name.startswith("predict")]
    found = {
        span.parent.span_id: float(decode(attributes_of(span)["ml.payload"]).cells.view(np.float32)[0, 0])
        for span in predictions
        if span.parent
    }
    assert found == expected


def test_asyncio(hooked: Recorder, data: Data) -> None:
    """Calls in concurrent tasks, and in threads that tasks wait for, are below their own task's span."""
    model = LogisticRegression().fit(*data)
    hooked.spans()
    tracer = hooked.provider.get_tracer("test")

    async def request(row: int) -> int:
        with tracer.start_as_current_span("request") as span:
            await asyncio.sleep(0.001)
            model.predict(data[0][row : row + 1])
            await asyncio.to_thread(model.predict, data[0][row : row + 1])
            return span.get_span_context().span_id

    async def requests() -> list[int]:
        return await asyncio.gather(*map(request, range(20)))

    expected = asyncio.run(requests())
    parents = [span.parent.span_id for span in hooked.spans() if span.name.startswith("predict") and span.parent]
    assert sorted(parents) == sorted(expected * 2)


def test_context_that_outlives_the_call(hooked: Recorder, data: Data) -> None:
    """A context kept from within a model call does not silence calls made after it."""
    kept = []
    model = LogisticRegression().fit(*data)

    class Leaks(ClassifierMixin, BaseEstimator):
        def predict(self, X: Any) -> Any:
            from opentelemetry.context import get_current

            kept.append(get_current())
            return np.zeros(len(X), int)

    Leaks().predict(data[0])
    hooked.spans()
    token = attach(kept[0])
    model.predict(data[0])
    detach(token)
    assert hooked.names() == ["predict LogisticRegression"]


def test_foreign_context_values_stay(hooked: Recorder, data: Data) -> None:
    """What others keep in the OpenTelemetry context is there within the call and after it."""
    from opentelemetry.context import get_value

    seen = []

    class Looks(ClassifierMixin, BaseEstimator):
        def predict(self, X: Any) -> Any:
            seen.append(get_value("theirs"))
            return np.zeros(len(X), int)

    token = attach(set_value("theirs", 5))
    Looks().predict(data[0])
    assert (seen, get_value("theirs")) == ([5], 5)
    detach(token)
