"""One span per outermost call of an estimator, with exactly these attributes, below the right parent."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import mlspan
from mlspan.payload import decode
from mlspan.semconv.attributes import SCHEMA_URL
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.spans import attributes_of, one, scope_of

Data = tuple[np.ndarray, np.ndarray]
Hook = Callable[..., Recorder]


def test_predict_span(hook: Hook, data: Data) -> None:
    """A one-row predict has exactly these attributes, of these types, with the payload last."""
    recorder = hook(model_name="fraud-model", model_version="7")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(*data)
    recorder.spans()
    answer = model.predict(data[0][:1])
    span = one(recorder)
    attributes = attributes_of(span)
    payload = attributes.pop("ml.payload")
    assert attributes == {
        "ml.operation.name": "predict",
        "ml.model.name": "fraud-model",
        "ml.model.version": "7",
        "ml.input.rows": 1,
        "ml.input.columns": 4,
        "ml.prediction.class": str(answer[0]),
    }
    assert list(attributes_of(span))[-1] == "ml.payload"
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
    span = one(recorder)
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version, scope.schema_url) == ("mlspan", mlspan.__version__, SCHEMA_URL)
    assert scope_of(span) == {
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


@pytest.mark.parametrize("make", [LogisticRegression, lambda: make_pipeline(StandardScaler(), LogisticRegression())])
@pytest.mark.parametrize("form", [np.asarray, lambda X: X.tolist()])
def test_columns_without_names(hook: Hook, data: Data, make: Callable[[], Any], form: Callable[[Any], Any]) -> None:
    """A matrix has the names of the frame that the model was fitted on, and what is denied by name stays here."""
    recorder = hook(deny=("income",))
    frame = pd.DataFrame(data[0], columns=["age", "income", "debt", "years"])
    model = make().fit(frame, data[1])
    recorder.spans()
    with pytest.warns(UserWarning, match="feature names"):
        model.predict(form(data[0][:2]))
    assert scope_of(one(recorder))["ml.feature.names"] == ("age", "debt", "years")


def test_keys_of_dictionaries(hooked: Recorder) -> None:
    """Requests that have some of the keys each have the columns of all, so that they are of one model's columns."""
    rows = [{"age": 30, "city": "a", "debt": 1.5}, {"age": 40, "city": "b"}]
    model = GridSearchCV(make_pipeline(DictVectorizer(), LogisticRegression()), {}, cv=2).fit(rows * 4, [0, 1] * 4)
    hooked.spans()
    for row in ({"age": 20}, {"debt": 2.5, "city": "a"}, {"city": "b", "new": 1}):
        model.predict([row])
    first, second, third = hooked.spans()
    assert scope_of(first)["ml.feature.names"] == scope_of(second)["ml.feature.names"] == ("age", "city", "debt")
    cells = decode(attributes_of(first)["ml.payload"]).cells
    assert np.isnan(cells.view("<f4")[0, 2])
    assert cells.view("<f4")[0, 0] == 20
    assert scope_of(third)["ml.feature.names"] == ("age", "city", "debt", "new")


def test_columns_of_another_number(hooked: Recorder, data: Data) -> None:
    """A matrix with other columns than the model was fitted on has none of their names."""
    model = LogisticRegression().fit(pd.DataFrame(data[0], columns=list("abcd")), data[1])
    hooked.spans()
    with pytest.warns(UserWarning, match="feature names"), pytest.raises(ValueError, match="features"):
        model.predict(data[0][:, :3])
    assert scope_of(one(hooked))["ml.feature.names"] == ("x0", "x1", "x2")


def test_regression_value(hooked: Recorder, data: Data) -> None:
    """A regression's one row has its number."""
    model = LinearRegression().fit(*data)
    hooked.spans()
    answer = model.predict(data[0][:1])
    span = one(hooked)
    assert attributes_of(span)["ml.prediction.value"] == pytest.approx(answer[0])
    assert "ml.prediction.class" not in attributes_of(span)
    assert scope_of(span)["ml.model.task"] == "regression"


def test_score_of_one_row(hooked: Recorder, data: Data) -> None:
    """predict_proba of one row has class and probability; predict has them too when it asks predict_proba itself."""
    model = RandomForestClassifier(5, random_state=0).fit(*data)
    hooked.spans()
    row = data[0][:1]
    probabilities = model.predict_proba(row)[0]
    model.predict(row)
    for span in hooked.spans():
        assert attributes_of(span)["ml.prediction.class"] == str(int(probabilities.argmax()))
        assert attributes_of(span)["ml.prediction.score"] == pytest.approx(probabilities.max())
        assert decode(attributes_of(span)["ml.payload"]).scores[0].tolist() == pytest.approx(probabilities.tolist())


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
    span = one(hooked)
    attributes = attributes_of(span)
    version = attributes.pop("ml.model.version")
    assert version.startswith("fp-")
    assert len(version) == 15
    assert attributes == {
        "ml.operation.name": operation,
        "ml.model.name": type(model).__name__,
        "ml.input.rows": 60,
        "ml.input.columns": 4,
    }
    assert "ml.feature.names" not in scope_of(span)


def test_fit_predict(hooked: Recorder, data: Data) -> None:
    """fit_predict, also of a mixin, carries rows, and the version that the fit gave the model."""
    for model in (KMeans(2, n_init=1), DBSCAN()):
        model.fit_predict(data[0])
        span = one(hooked)
        assert attributes_of(span)["ml.operation.name"] == "fit_predict"
        assert attributes_of(span)["ml.model.version"].startswith("fp-")
        assert decode(attributes_of(span)["ml.payload"]).total_rows == 60
        assert scope_of(span)["ml.model.task"] == "clustering"


@pytest.mark.parametrize("operation", ["predict", "decision_function", "score_samples"])
def test_outlier_detection(hooked: Recorder, data: Data, operation: str) -> None:
    """Outlier detectors are models as well."""
    model = IsolationForest(n_estimators=5).fit(data[0])
    hooked.spans()
    getattr(model, operation)(data[0])
    span = one(hooked)
    assert span.name == f"{operation} IsolationForest"
    assert decode(attributes_of(span)["ml.payload"]).total_rows == 60
    assert scope_of(span)["ml.model.task"] == "outlier_detection"


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


def test_exception(hooked: Recorder, data: Data) -> None:
    """A failed call's span has the error's type and status, and neither its message nor rows."""
    with pytest.raises(NotFittedError):
        LogisticRegression().predict(data[0])
    with pytest.raises(ValueError, match="2D array"):
        LogisticRegression().fit(*data).predict(data[0][0])
    not_fitted, _, wrong = hooked.spans()
    assert attributes_of(not_fitted)["error.type"] == "sklearn.exceptions.NotFittedError"
    assert attributes_of(wrong)["error.type"] == "ValueError"
    for span in (not_fitted, wrong):
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert not span.events
        assert "ml.payload" not in attributes_of(span)


def test_recorded_exception(hook: Hook, data: Data) -> None:
    """With record_exceptions the exception's event is there as well."""
    recorder = hook(record_exceptions=True)
    with pytest.raises(NotFittedError):
        LogisticRegression().predict(data[0])
    assert [event.name for event in one(recorder).events] == ["exception"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exceptions_that_are_no_errors(hooked: Recorder, data: Data, kind: type[BaseException]) -> None:
    """Interrupts pass, their span ends, and the context is the one before."""

    class Stops(ClassifierMixin, BaseEstimator):
        def predict(self, X: Any) -> Any:
            raise kind

    with pytest.raises(kind):
        Stops().predict(data[0])
    assert attributes_of(one(hooked))["error.type"] == kind.__name__
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_times_enclose_the_call_alone(hooked: Recorder, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """What we do after the call is not in the span's duration."""
    monkeypatch.setattr("mlspan.emit.time_ns", lambda: 2**62)
    LogisticRegression().fit(*data)
    assert one(hooked).end_time == 2**62


def test_two_schemas(hooked: Recorder, data: Data) -> None:
    """Calls with other columns have a scope of their own; without sampling none loses its rows."""

    class Any2d(ClassifierMixin, BaseEstimator):
        def predict(self, X: Any) -> Any:
            return np.zeros(len(X), int)

    model = Any2d()
    for columns in (2, 3, 2):
        model.predict(data[0][:1, :columns])
    assert [scope_of(span)["ml.feature.names"] for span in hooked.spans()] == [
        ("x0", "x1"),
        ("x0", "x1", "x2"),
        ("x0", "x1"),
    ]


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
    assert set(attributes_of(span)) == {
        "ml.operation.name",
        "ml.model.name",
        "ml.model.version",
        "ml.input.rows",
        "ml.input.columns",
    }
    assert "ml.feature.names" not in scope_of(span)
    assert "ml.prediction.classes" not in scope_of(span)


def test_keyword_argument(hooked: Recorder, data: Data) -> None:
    """The rows are found when they are passed by name."""
    model = LogisticRegression().fit(X=data[0], y=data[1])
    model.predict(X=data[0])
    assert [attributes_of(span)["ml.input.rows"] for span in hooked.spans()] == [60, 60]


def test_no_rows_and_wrong_arguments(hooked: Recorder) -> None:
    """A call that Python itself refuses fails as it did."""
    model = LogisticRegression()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'X'"):
        model.predict()
    with pytest.raises(TypeError, match="self"):
        LogisticRegression.predict()
    assert hooked.names() == ["predict LogisticRegression"]


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
    assert decode(attributes_of(span)["ml.payload"]).scores.shape[1] == 0


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
