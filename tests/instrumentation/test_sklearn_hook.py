"""One span per outermost call of an estimator, with exactly these attributes, below the right parent."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach, set_value
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode
from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin, RegressorMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import mlspan
from mlspan.payload import decode
from mlspan.semconv.attributes import SCHEMA_URL
from tests.instrumentation.conftest import Recorder

Data = tuple[np.ndarray, np.ndarray]
Hook = Callable[..., Recorder]


def _one(recorder: Recorder) -> ReadableSpan:
    (span,) = recorder.spans()
    return span


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def _scope(span: ReadableSpan) -> dict[str, Any]:
    assert span.instrumentation_scope is not None
    return dict(span.instrumentation_scope.attributes or {})


def test_predict_span(hook: Hook, data: Data) -> None:
    """A one-row predict has exactly these attributes, of these types, with the payload last."""
    recorder = hook(model_name="fraud-model", model_version="7")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(*data)
    recorder.spans()
    answer = model.predict(data[0][:1])
    span = _one(recorder)
    attributes = _attributes(span)
    payload = attributes.pop("ml.payload")
    assert attributes == {
        "ml.operation.name": "predict",
        "ml.model.name": "fraud-model",
        "ml.model.version": "7",
        "ml.input.rows": 1,
        "ml.input.columns": 4,
        "ml.prediction.class": str(answer[0]),
    }
    assert list(_attributes(span))[-1] == "ml.payload"
    assert type(payload) is bytes
    decoded = decode(payload)
    assert decoded.total_rows == 1
    assert decoded.cells.view(np.float32)[0].tolist() == data[0][0].astype(np.float32).tolist()
    assert (span.name, span.kind, span.status.status_code) == (
        "predict fraud-model",
        SpanKind.INTERNAL,
        StatusCode.UNSET,
    )
    assert not span.events
    assert not span.links


def test_scope(hook: Hook, data: Data) -> None:
    """The scope says once who the model is and what its columns are."""
    recorder = hook(model_version="7")
    model = Pipeline([("scale", StandardScaler()), ("last", LogisticRegression())]).fit(*data)
    recorder.spans()
    model.predict_proba(data[0])
    span = _one(recorder)
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version, scope.schema_url) == ("mlspan", mlspan.__version__, SCHEMA_URL)
    assert _scope(span) == {
        "ml.model.name": "Pipeline(LogisticRegression)",
        "ml.model.version": "7",
        "ml.model.class": "sklearn.pipeline.Pipeline",
        "ml.model.task": "classification",
        "ml.framework.name": "scikit-learn",
        "ml.framework.version": sys.modules["sklearn"].__version__,
        "ml.feature.names": ("x0", "x1", "x2", "x3"),
        "ml.feature.types": ("numeric",) * 4,
        "ml.prediction.classes": ("0", "1"),
    }


def test_regression_value(hooked: Recorder, data: Data) -> None:
    """A regression's one row has its number."""
    model = LinearRegression().fit(*data)
    hooked.spans()
    answer = model.predict(data[0][:1])
    span = _one(hooked)
    assert _attributes(span)["ml.prediction.value"] == pytest.approx(answer[0])
    assert "ml.prediction.class" not in _attributes(span)
    assert _scope(span)["ml.model.task"] == "regression"


def test_score_of_one_row(hooked: Recorder, data: Data) -> None:
    """predict_proba of one row has class and probability; predict has them too when it asks predict_proba itself."""
    model = RandomForestClassifier(5, random_state=0).fit(*data)
    hooked.spans()
    row = data[0][:1]
    probabilities = model.predict_proba(row)[0]
    model.predict(row)
    for span in hooked.spans():
        assert _attributes(span)["ml.prediction.class"] == str(int(probabilities.argmax()))
        assert _attributes(span)["ml.prediction.score"] == pytest.approx(probabilities.max())
        assert decode(_attributes(span)["ml.payload"]).scores[0].tolist() == pytest.approx(probabilities.tolist())


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [("transform", 1), ("fit", 2), ("fit_transform", 1), ("score", 2), ("partial_fit", 1)],
)
def test_calls_without_rows(hooked: Recorder, data: Data, operation: str, arguments: int) -> None:
    """transform, the fits and score carry counts, and no rows."""
    model: Any = LogisticRegression() if operation == "score" else StandardScaler()
    model.fit(*data)
    hooked.spans()
    getattr(model, operation)(*data[:arguments])
    span = _one(hooked)
    attributes = _attributes(span)
    version = attributes.pop("ml.model.version")
    assert version.startswith("fp-")
    assert len(version) == 15
    assert attributes == {
        "ml.operation.name": operation,
        "ml.model.name": type(model).__name__,
        "ml.input.rows": 60,
        "ml.input.columns": 4,
    }
    assert "ml.feature.names" not in _scope(span)


def test_fit_predict(hooked: Recorder, data: Data) -> None:
    """fit_predict, also of a mixin, carries rows, and the version that the fit gave the model."""
    for model in (KMeans(2, n_init=1), DBSCAN()):
        model.fit_predict(data[0])
        span = _one(hooked)
        assert _attributes(span)["ml.operation.name"] == "fit_predict"
        assert _attributes(span)["ml.model.version"].startswith("fp-")
        assert decode(_attributes(span)["ml.payload"]).total_rows == 60
        assert _scope(span)["ml.model.task"] == "clustering"


@pytest.mark.parametrize("operation", ["predict", "decision_function", "score_samples"])
def test_outlier_detection(hooked: Recorder, data: Data, operation: str) -> None:
    """Outlier detectors are models as well."""
    model = IsolationForest(n_estimators=5).fit(data[0])
    hooked.spans()
    getattr(model, operation)(data[0])
    span = _one(hooked)
    assert span.name == f"{operation} IsolationForest"
    assert decode(_attributes(span)["ml.payload"]).total_rows == 60
    assert _scope(span)["ml.model.task"] == "outlier_detection"


_MODELS: list[Callable[[], Any]] = [
    lambda: make_pipeline(StandardScaler(), FeatureUnion([("s", StandardScaler())]), LogisticRegression()),
    lambda: make_pipeline(ColumnTransformer([("s", StandardScaler(), [0, 1])]), LogisticRegression()),
    lambda: RandomForestClassifier(10, n_jobs=2),
    lambda: VotingClassifier(
        [("a", LogisticRegression()), ("b", SGDClassifier(loss="log_loss"))], voting="soft", n_jobs=2
    ),
    lambda: StackingClassifier([("a", LogisticRegression()), ("b", SGDClassifier())], cv=2),
    lambda: CalibratedClassifierCV(SVC(), cv=2),
    lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    lambda: GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1.0]}, cv=2),
    lambda: MultiOutputClassifier(LogisticRegression(), n_jobs=2),
]


@pytest.mark.parametrize("make", _MODELS)
def test_one_span_per_outermost_call(hooked: Recorder, data: Data, make: Callable[[], Any]) -> None:
    """However a model is made of others, in this thread or in joblib's, fit and predict are one span each."""
    X, y = data
    model = make()
    name = mlspan.identity.default_name(model)
    model.fit(X, np.column_stack([y, 1 - y]) if isinstance(model, MultiOutputClassifier) else y)
    model.predict(X)
    assert hooked.names() == [f"fit {name}", f"predict {name}"]


def test_function_over_estimators_is_no_model_call(hooked: Recorder, data: Data) -> None:
    """cross_val_predict is no estimator: each fit and predict in it is an outermost call."""
    cross_val_predict(LogisticRegression(), *data, cv=2)
    assert hooked.names() == ["fit LogisticRegression", "predict LogisticRegression"] * 2


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


def test_exception(hooked: Recorder, data: Data) -> None:
    """A failed call's span has the error's type and status, and neither its message nor rows."""
    with pytest.raises(NotFittedError):
        LogisticRegression().predict(data[0])
    with pytest.raises(ValueError, match="2D array"):
        LogisticRegression().fit(*data).predict(data[0][0])
    not_fitted, _, wrong = hooked.spans()
    assert _attributes(not_fitted)["error.type"] == "sklearn.exceptions.NotFittedError"
    assert _attributes(wrong)["error.type"] == "ValueError"
    for span in (not_fitted, wrong):
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert not span.events
        assert "ml.payload" not in _attributes(span)


def test_recorded_exception(hook: Hook, data: Data) -> None:
    """With record_exceptions the exception's event is there as well."""
    recorder = hook(record_exceptions=True)
    with pytest.raises(NotFittedError):
        LogisticRegression().predict(data[0])
    assert [event.name for event in _one(recorder).events] == ["exception"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exceptions_that_are_no_errors(hooked: Recorder, data: Data, kind: type[BaseException]) -> None:
    """Interrupts pass, their span ends, and the context is the one before."""

    class Stops(ClassifierMixin, BaseEstimator):
        def predict(self, X: Any) -> Any:
            raise kind

    with pytest.raises(kind):
        Stops().predict(data[0])
    assert _attributes(_one(hooked))["error.type"] == kind.__name__
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_times_enclose_the_call_alone(hooked: Recorder, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """What we do after the call is not in the span's duration."""
    monkeypatch.setattr("mlspan.emit.time_ns", lambda: 2**62)
    LogisticRegression().fit(*data)
    assert _one(hooked).end_time == 2**62


def test_suppressed(hooked: Recorder, data: Data) -> None:
    """Nothing happens while instrumentation is suppressed, in joblib's threads neither; a fit is noticed still."""
    model = LogisticRegression().fit(*data)
    model.predict(data[0][:1])
    before = _attributes(hooked.spans()[-1])["ml.model.version"]
    with suppress_instrumentation():
        model.set_params(C=0.01).fit(*data)
        RandomForestClassifier(4, n_jobs=2).fit(*data).predict(data[0])
    assert hooked.names() == []
    model.predict(data[0][:1])
    assert _attributes(_one(hooked))["ml.model.version"] != before


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
        assert decode(_attributes(span)["ml.payload"]).cells.shape == (1, 4)
        assert _scope(span)["ml.feature.names"] == ("x0", "x1", "x2", "x3")


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
        attributes = _attributes(span)
        if "ml.payload" in attributes:
            assert decode(attributes["ml.payload"]).cells.shape[1] == len(_scope(span)["ml.feature.names"])
        else:
            lacking.append(attributes["ml.capture.error"])
    # Then it is clear that this model's columns change, and its calls are read before the sampler is asked.
    assert lacking == ["columns changed while calls were sampled out"] * 3


def test_two_schemas(hooked: Recorder, data: Data) -> None:
    """Calls with other columns have a scope of their own; without sampling none loses its rows."""

    class Any2d(ClassifierMixin, BaseEstimator):
        def predict(self, X: Any) -> Any:
            return np.zeros(len(X), int)

    model = Any2d()
    for columns in (2, 3, 2):
        model.predict(data[0][:1, :columns])
    assert [_scope(span)["ml.feature.names"] for span in hooked.spans()] == [
        ("x0", "x1"),
        ("x0", "x1", "x2"),
        ("x0", "x1"),
    ]


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
        span.parent.span_id: float(decode(_attributes(span)["ml.payload"]).cells.view(np.float32)[0, 0])
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


def test_class_defined_later(hooked: Recorder, data: Data) -> None:
    """Classes defined after the hooks are wrapped, with the methods of their mixins, and an override calls super."""

    class Scaler(TransformerMixin, BaseEstimator):
        def fit(self, X: Any, y: Any = None) -> "Scaler":
            return self

        def transform(self, X: Any) -> Any:
            return X

    class Mine(LogisticRegression):
        def predict(self, X: Any) -> Any:
            return super().predict(X)

    Scaler().fit_transform(data[0])
    Mine().fit(*data).predict(data[0])
    assert hooked.names() == ["fit_transform Scaler", "fit Mine", "predict Mine"]


def test_inherited_method_is_the_wrapped_one(hooked: Recorder, data: Data) -> None:
    """A mixin's method, inherited by a class that is no estimator, makes no span."""

    class NoEstimator(ClusterMixin):
        def fit(self, X: Any, y: Any = None) -> "NoEstimator":
            self.labels_ = np.zeros(len(X), int)
            return self

    DBSCAN().fit_predict(data[0])
    hooked.spans()
    NoEstimator().fit_predict(data[0])
    assert hooked.names() == []


def test_third_parties(hooked: Recorder, data: Data) -> None:
    """xgboost's and lightgbm's scikit-learn classes are models of their own frameworks."""
    import lightgbm
    import xgboost

    for model, framework in (
        (xgboost.XGBClassifier(n_estimators=2), "xgboost"),
        (lightgbm.LGBMClassifier(n_estimators=2, verbose=-1), "lightgbm"),
    ):
        name = type(model).__name__
        model.fit(*data)
        model.predict_proba(data[0])
        fit, predict = hooked.spans()
        assert (fit.name, predict.name) == (f"fit {name}", f"predict_proba {name}")
        assert _scope(predict)["ml.framework.name"] == framework
        assert _scope(predict)["ml.prediction.classes"] == ("0", "1")
        assert decode(_attributes(predict)["ml.payload"]).scores.shape[1] == 2


def test_loaded_before_and_after() -> None:
    """scikit-learn imported after instrument() is hooked, by a program that never imports it before."""
    program = """
import sys, mlspan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
provider, exporter = TracerProvider(), InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(exporter))
mlspan.instrument(tracer_provider=provider)
assert not {"sklearn", "torch", "pandas", "joblib", "scipy"} & set(sys.modules)
from sklearn.linear_model import LogisticRegression
LogisticRegression().fit([[0.0], [1.0]], [0, 1]).predict([[1.0]])
print([span.name for span in exporter.get_finished_spans()])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['fit LogisticRegression', 'predict LogisticRegression']", done.stderr


def test_selected_operations(hook: Hook, data: Data) -> None:
    """Only the selected methods become spans; nested ones stay part of a fit that is not selected."""
    recorder = hook(operations=["predict"])
    GridSearchCV(LogisticRegression(), {"C": [1.0, 2.0]}, cv=2).fit(*data).predict(data[0])
    LogisticRegression().fit(*data).predict_proba(data[0])
    assert recorder.names() == ["predict GridSearchCV(LogisticRegression)"]


def test_without_content(hook: Hook, data: Data) -> None:
    """With capture_content=False nothing but counts leaves the process."""
    recorder = hook(capture_content=False)
    LogisticRegression().fit(*data).predict(data[0][:1])
    _, span = recorder.spans()
    assert set(_attributes(span)) == {
        "ml.operation.name",
        "ml.model.name",
        "ml.model.version",
        "ml.input.rows",
        "ml.input.columns",
    }
    assert "ml.feature.names" not in _scope(span)
    assert "ml.prediction.classes" not in _scope(span)


def test_keyword_argument(hooked: Recorder, data: Data) -> None:
    """The rows are found when they are passed by name."""
    model = LogisticRegression().fit(X=data[0], y=data[1])
    model.predict(X=data[0])
    assert [_attributes(span)["ml.input.rows"] for span in hooked.spans()] == [60, 60]


def test_no_rows_and_wrong_arguments(hooked: Recorder) -> None:
    """A call that Python itself refuses fails as it did."""
    model = LogisticRegression()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'X'"):
        model.predict()
    with pytest.raises(TypeError, match="self"):
        LogisticRegression.predict()
    assert hooked.names() == ["predict LogisticRegression"]


def test_fingerprint_follows_fits(hooked: Recorder, data: Data) -> None:
    """The default version is the fitted model's; a fit of the model, or of a part of it, is noticed."""
    X, y = data
    model = make_pipeline(StandardScaler(), SGDClassifier(random_state=0)).fit(X, y)

    def version() -> str:
        hooked.spans()
        model.predict(X[:1])
        return str(_attributes(_one(hooked))["ml.model.version"])

    first = version()
    assert first.startswith("fp-")
    assert len(first) == 15
    assert version() == first
    model[-1].partial_fit(X[:9], 1 - y[:9])
    second = version()
    model.fit(X[:30], y[:30])
    third = version()
    model.set_params(sgdclassifier__alpha=0.1).fit(X, y)
    assert len({first, second, third, version()}) == 4
    twin = make_pipeline(StandardScaler(), SGDClassifier(random_state=0)).fit(X, y)
    model = twin
    assert version() == first


def test_version_is_looked_up_once(hooked: Recorder, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fitted model is read once per fit, not per call."""
    model = LogisticRegression().fit(*data)
    model.predict(data[0])
    monkeypatch.setattr("mlspan.models.fingerprint", None)
    model.predict(data[0])
    assert len(hooked.spans()) == 3


def test_too_many_versions(hook: Hook, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit calls share one tracer, without rows; name and version stay on the span."""
    monkeypatch.setattr("mlspan.models.MAX_SCHEMAS", 3)
    recorder = hook(operations=["predict"])
    X, y = data
    models = [LogisticRegression(C=C).fit(X, y) for C in (1.0, 2.0, 3.0, 4.0, 5.0)]
    for model in models:
        model.predict(X[:1])
    spans = recorder.spans()
    assert ["ml.payload" in _attributes(span) for span in spans] == [True, True, True, False, False]
    assert _scope(spans[-1]) == {}
    assert _attributes(spans[-1])["ml.model.version"] != _attributes(spans[-2])["ml.model.version"]
    assert _attributes(spans[-1])["ml.input.rows"] == 1


def test_models_are_not_kept(hooked: Recorder, data: Data) -> None:
    """What is kept about a model goes with it, and a new model at the same address is another."""
    models = mlspan.runtime.current().emitter.models  # type: ignore[union-attr]
    for shift in range(5):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0 + shift)).fit(*data)
        model.predict(data[0])
        del model
        gc.collect()
        assert len(models.entries) == 0
    versions = {_attributes(span)["ml.model.version"] for span in hooked.spans() if span.name.startswith("predict")}
    assert len(versions) == 5


def test_tasks(hooked: Recorder, data: Data) -> None:
    """The task is read from the model: several outputs, transformers, and what says nothing."""
    X, y = data
    several = np.column_stack([y, 1 - y])

    class Silent(BaseEstimator):
        def predict(self, X: Any) -> Any:
            return np.zeros(len(X))

    MultiOutputClassifier(LogisticRegression()).fit(X, several).predict(X)
    KNeighborsClassifier().fit(X, several).predict(X)
    StandardScaler().fit(X).transform(X)
    Silent().predict(X)
    spans = [span for span in hooked.spans() if not span.name.startswith("fit")]
    assert [_scope(span)["ml.model.task"] for span in spans] == [
        "multilabel",
        "multilabel",
        "transformation",
        "other",
    ]


def test_property_that_raises(hooked: Recorder, data: Data) -> None:
    """An estimator whose properties raise is traced without what they would have told."""

    class Shy(ClassifierMixin, BaseEstimator):
        @property
        def classes_(self) -> Any:
            raise RuntimeError("not now")

        def predict(self, X: Any) -> Any:
            return np.zeros(len(X), int)

    assert Shy().predict(data[0]).tolist() == [0] * 60
    assert "ml.prediction.classes" not in _scope(_one(hooked))


def test_probabilities_of_others_are_not_taken(hooked: Recorder, data: Data) -> None:
    """Probabilities that a part of the model returned are not the model's."""

    class Opposite(ClassifierMixin, BaseEstimator):
        def fit(self, X: Any, y: Any) -> "Opposite":
            self.classes_ = np.unique(y)
            self.part_ = LogisticRegression().fit(X, y)
            return self

        def predict(self, X: Any) -> Any:
            return 1 - self.part_.predict_proba(X).argmax(axis=1)

    Opposite().fit(*data).predict(data[0])
    _, span = hooked.spans()
    assert decode(_attributes(span)["ml.payload"]).scores.shape[1] == 0


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


def test_span_processor_that_raises(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """A span processor that fails at the end of a span does not fail the user's call."""
    monkeypatch.setattr("mlspan.guard._raise", False)
    recorder = Recorder()

    class Fails:
        def on_start(self, *_: object, **__: object) -> None:
            """Nothing yet."""

        def _on_ending(self, *_: object) -> None:
            """Nothing yet."""

        def on_end(self, *_: object) -> None:
            raise RuntimeError("exporter is broken")

        def shutdown(self) -> None:
            """Nothing to end."""

        def force_flush(self, *_: object) -> bool:
            return True

    recorder.provider.add_span_processor(Fails())  # type: ignore[arg-type]  # all that is called of one
    mlspan.instrument(tracer_provider=recorder.provider)
    try:
        model = LogisticRegression().fit(*data)
        assert len(model.predict(data[0])) == 60
        assert mlspan.guard.failures()["emit: end"] >= 2
    finally:
        mlspan.uninstrument()


def test_no_thread(hooked: Recorder, data: Data) -> None:
    """Hooks and spans start no thread."""
    before = threading.active_count()
    LogisticRegression().fit(*data).predict(data[0])
    assert threading.active_count() == before
