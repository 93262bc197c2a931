"""instrument, uninstrument, instrument_model and prediction_context, as a user calls them."""

import asyncio
import logging
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.dependencies import DependencyConflict, DependencyConflictError
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlspan
from mlspan import runtime
from mlspan.api import INSTRUMENTORS
from mlspan.hooks.sklearn import SklearnInstrumentor
from mlspan.payload import decode
from tests.instrumentation.conftest import Recorder

Data = tuple[np.ndarray, np.ndarray]


class Duck:
    """A model without scikit-learn."""

    def predict(self, rows: Any) -> Any:
        """One number per row."""
        return np.arange(float(len(rows)))


def _attributes(recorder: Recorder) -> dict[str, Any]:
    (span,) = recorder.spans()
    return dict(span.attributes or {})


def test_public_names() -> None:
    """What the package offers is there, and nothing else is promised."""
    assert set(mlspan.__all__) == {
        "PredictionContext",
        "__version__",
        "feedback",
        "instrument",
        "instrument_model",
        "prediction_context",
        "uninstrument",
    }
    assert all(getattr(mlspan, name) is not None for name in mlspan.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mlspan.nothing  # noqa: B018 - that it raises is the point


def test_instrumentors_are_the_entry_points() -> None:
    """instrument() knows the instrumentors that opentelemetry-instrument finds."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["opentelemetry_instrumentor"]
    assert points == {name: f"{cls.__module__}:{cls.__qualname__}" for name, cls in INSTRUMENTORS.items()}


def test_disabled(monkeypatch: pytest.MonkeyPatch, recorder: Recorder, data: Data) -> None:
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS holds for instrument() as well."""
    for value in ("mlspan_sklearn", "flask, mlspan_sklearn", "*"):
        monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", value)
        mlspan.instrument(tracer_provider=recorder.provider)
        LogisticRegression().fit(*data)
        mlspan.uninstrument()
    assert recorder.names() == []


def test_unsupported_version(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An unsupported scikit-learn is a dependency conflict for the loader, and one line in the log for instrument()."""
    monkeypatch.setattr("mlspan.hooks.sklearn.DEPENDENCIES", ("scikit-learn >= 99",))
    with pytest.raises(DependencyConflictError):
        SklearnInstrumentor().instrument(skip_dep_check=True)
    assert not SklearnInstrumentor().is_instrumented_by_opentelemetry
    mlspan.instrument()
    assert [record.levelname for record in caplog.records if record.name == "mlspan.api"] == ["ERROR"]
    assert "scikit-learn" in caplog.text
    assert not SklearnInstrumentor().is_instrumented_by_opentelemetry
    mlspan.uninstrument()  # of the other libraries
    assert runtime.current() is None


def test_missing_library(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A library that is not installed is passed over without a word."""
    conflict = DependencyConflict("scikit-learn >= 1.3")
    monkeypatch.setattr(SklearnInstrumentor, "_check_dependency_conflicts", lambda _: conflict)
    with caplog.at_level(logging.INFO):
        mlspan.instrument()
    assert caplog.records == []
    mlspan.uninstrument()  # of the other libraries


def test_instrument_never_raises(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Any other failure while instrumenting is logged, and the program starts."""
    monkeypatch.setattr("mlspan.guard._raise", False)
    monkeypatch.setattr("mlspan.runtime.start", None)
    mlspan.instrument()
    assert "mlspan failed in sklearn: instrument" in caplog.text
    monkeypatch.undo()
    mlspan.uninstrument()


def test_options_after_opentelemetry_instrument(
    recorder: Recorder, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the loader has instrumented already, the program's own options take effect; without any nothing happens."""
    SklearnInstrumentor().instrument(tracer_provider=recorder.provider)
    running = runtime.current()
    mlspan.instrument()
    assert runtime.current() is running
    mlspan.instrument(tracer_provider=recorder.provider, model_name="mine")
    LogisticRegression().fit(*data)
    mlspan.uninstrument()
    assert recorder.names() == ["fit mine"]
    assert caplog.records == []


def test_uninstrument_without_instrument() -> None:
    """uninstrument() is safe at any time."""
    mlspan.uninstrument()
    mlspan.uninstrument()


def test_instrument_model_names_the_object(hooked: Recorder, data: Data) -> None:
    """instrument_model gives one object a name, a version, column names and a task, and returns it."""
    model = LogisticRegression()
    other = LogisticRegression().fit(*data)
    assert mlspan.instrument_model(model, "fraud-model", "7", list("abcd"), "outlier_detection") is model
    model.fit(*data)
    hooked.spans()
    model.predict(data[0])
    other.predict(data[0])
    span, second = hooked.spans()
    assert (span.name, second.name) == ("predict fraud-model", "predict LogisticRegression")
    assert (span.attributes or {})["ml.model.version"] == "7"
    assert span.instrumentation_scope is not None
    scope = dict(span.instrumentation_scope.attributes or {})
    assert scope["ml.feature.names"] == ("a", "b", "c", "d")
    assert scope["ml.model.task"] == "outlier_detection"
    assert vars(model).keys() == vars(other).keys()


def test_instrument_model_after_calls(hooked: Recorder, data: Data) -> None:
    """What is said about a model holds from then on, also when it has been called before."""
    model = LogisticRegression().fit(*data)
    model.predict(data[0])
    mlspan.instrument_model(model, name="second")
    model.predict(data[0])
    assert hooked.names()[-1] == "predict second"


def test_duck_typed_model(recorder: Recorder) -> None:
    """A class that is no estimator is traced for the objects given to instrument_model, until uninstrument."""
    before = vars(Duck)["predict"]
    mlspan.instrument(tracer_provider=recorder.provider)
    model, stranger = mlspan.instrument_model(Duck(), name="duck"), Duck()
    model.predict(rows=np.zeros((3, 2)))
    stranger.predict(np.zeros((3, 2)))
    attributes = _attributes(recorder)
    assert attributes["ml.model.name"] == "duck"
    assert decode(attributes["ml.payload"]).predictions[:, 0].tolist() == [0.0, 1.0, 2.0]
    mlspan.uninstrument()
    assert vars(Duck)["predict"] is before


def test_instrument_model_alone(monkeypatch: pytest.MonkeyPatch, data: Data) -> None:
    """Without instrument() only the given object is traced; instrument() later keeps what was said."""
    recorder = Recorder()
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", recorder.provider)
    model = mlspan.instrument_model(LogisticRegression(), name="mine")
    model.fit(*data)
    LogisticRegression().fit(*data)
    assert recorder.names() == ["fit mine"]
    mlspan.instrument(tracer_provider=recorder.provider)
    model.predict(data[0])
    LogisticRegression().fit(*data)
    mlspan.uninstrument()
    model.predict(data[0])
    assert recorder.names() == ["predict mine", "fit LogisticRegression"]


def test_what_cannot_be_traced(caplog: pytest.LogCaptureFixture, hooked: Recorder) -> None:
    """An object that cannot be traced is returned, and named in the log once."""
    number, nothing = 5, type("Nothing", (), {})()
    assert mlspan.instrument_model(number) == 5
    assert mlspan.instrument_model(nothing) is nothing
    assert [record.getMessage().split()[0] for record in caplog.records][:1] == ["int"]


def test_provider_set_later(data: Data) -> None:
    """Hooks installed before the SDK is set up use it once it is there."""
    program = """
import mlspan
mlspan.instrument()
from sklearn.linear_model import LogisticRegression
model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
model.predict([[0.0]])
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
provider, exporter = TracerProvider(), InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
model.predict([[0.0]])
model.predict([[0.0]])
print([(span.name, "ml.payload" in span.attributes) for span in exporter.get_finished_spans()])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([("predict LogisticRegression", True)] * 2)


def test_own_id(hooked: Recorder, data: Data) -> None:
    """The user's own key is on a one-row span, and in the payload."""
    model = LogisticRegression().fit(*data)
    hooked.spans()
    with mlspan.prediction_context("order-17") as context:
        model.predict(data[0][:1])
    attributes = _attributes(hooked)
    assert attributes["ml.prediction.id"] == "order-17"
    assert decode(attributes["ml.payload"]).ids == ("order-17",)
    assert list(context.ids) == ["order-17"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b", "c"], ("a", "b", "c")),
        (np.array([1, 2, 3]), ("1", "2", "3")),
        ("k", ("k-0", "k-1", "k-2")),
        (7, ("7-0", "7-1", "7-2")),
    ],
)
def test_ids_of_several_rows(hooked: Recorder, data: Data, given: Any, expected: tuple[str, ...]) -> None:
    """Several rows have their ids in the payload alone: one each, or one key with the row's number."""
    model = LogisticRegression().fit(*data)
    hooked.spans()
    with mlspan.prediction_context(given) as context:
        model.predict(data[0][:3])
    attributes = _attributes(hooked)
    assert "ml.prediction.id" not in attributes
    assert decode(attributes["ml.payload"]).ids == expected
    assert tuple(context.ids) == expected
    assert context.ids[1:] == expected[1:]


def test_default_ids(hooked: Recorder, data: Data) -> None:
    """Without own keys the ids are trace id, span id and row, of the last prediction within."""
    model = LogisticRegression().fit(*data)
    hooked.spans()
    with mlspan.prediction_context() as context:
        assert list(context.ids) == []
        model.predict(data[0][:5])
        model.predict(data[0][:2])
        model.score(*data)
    span = hooked.spans()[1]
    assert span.context is not None
    stem = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
    assert list(context.ids) == [f"{stem}-0", f"{stem}-1"]
    assert decode((span.attributes or {})["ml.payload"]).ids is None  # type: ignore[arg-type]  # the payload is bytes


def test_wrong_number_of_ids(hooked: Recorder, data: Data, caplog: pytest.LogCaptureFixture) -> None:
    """Ids that do not fit the call are left out, with a line in the log."""
    model = LogisticRegression().fit(*data)
    hooked.spans()
    with mlspan.prediction_context(["a"]) as context:
        model.predict(data[0][:3])
    assert decode(_attributes(hooked)["ml.payload"]).ids is None
    assert len(context.ids) == 3
    assert "given 1 ids and the call has 3 rows" in caplog.text


def test_ids_belong_to_outermost_calls(hooked: Recorder, data: Data) -> None:
    """Nested calls take no ids, and after the block there are none."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(*data)
    hooked.spans()
    with mlspan.prediction_context("k"):
        model.predict(data[0][:1])
    model.predict(data[0][:1])
    first, second = hooked.spans()
    assert (first.attributes or {})["ml.prediction.id"] == "k"
    assert "ml.prediction.id" not in (second.attributes or {})


def test_ids_of_calls_that_are_not_recorded(hook: Callable[..., Recorder], data: Data) -> None:
    """A call that was sampled out has no ids: feedback on it would find nothing."""
    hook(sampler=ALWAYS_OFF)
    model = LogisticRegression().fit(*data)
    with mlspan.prediction_context() as context:
        model.predict(data[0][:3])
    assert list(context.ids) == []


def test_parent_from_headers(hooked: Recorder, data: Data) -> None:
    """A carrier's trace is the parent, within the block only."""
    model = LogisticRegression().fit(*data)
    hooked.spans()
    headers: dict[str, str] = {}
    with hooked.provider.get_tracer("test").start_as_current_span("producer") as producer:
        propagate.inject(headers)
    with mlspan.prediction_context("order-1", parent=headers):
        model.predict(data[0][:1])
    _, span = hooked.spans()
    assert span.parent is not None
    assert span.parent.span_id == producer.get_span_context().span_id
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_async_context(hooked: Recorder, data: Data) -> None:
    """prediction_context works with ``async with``, in concurrent tasks and in their threads."""
    model = LogisticRegression().fit(*data)
    hooked.spans()

    async def request(number: int) -> None:
        async with mlspan.prediction_context(f"order-{number}"):
            await asyncio.sleep(0.001)
            await asyncio.to_thread(model.predict, data[0][:1])

    async def requests() -> None:
        await asyncio.gather(*map(request, range(10)))

    asyncio.run(requests())
    found = sorted(str((span.attributes or {})["ml.prediction.id"]) for span in hooked.spans())
    assert found == sorted(f"order-{number}" for number in range(10))
