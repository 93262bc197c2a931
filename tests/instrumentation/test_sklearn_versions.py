"""Which estimators there are: classes of any origin, versions, tasks."""

import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin, TransformerMixin
from sklearn.cluster import DBSCAN
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlspan
from mlspan.payload import decode
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.spans import attributes_of, one, scope_of

Data = tuple[np.ndarray, np.ndarray]


Hook = Callable[..., Recorder]


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
        assert scope_of(predict)["ml.framework.name"] == framework
        assert scope_of(predict)["ml.prediction.classes"] == ("0", "1")
        assert decode(attributes_of(predict)["ml.payload"]).scores.shape[1] == 2


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


def test_fingerprint_follows_fits(hooked: Recorder, data: Data) -> None:
    """The default version is the fitted model's; a fit of the model, or of a part of it, is noticed."""
    X, y = data
    model = make_pipeline(StandardScaler(), SGDClassifier(random_state=0)).fit(X, y)

    def version() -> str:
        hooked.spans()
        model.predict(X[:1])
        return str(attributes_of(one(hooked))["ml.model.version"])

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
    assert ["ml.payload" in attributes_of(span) for span in spans] == [True, True, True, False, False]
    assert scope_of(spans[-1]) == {}
    assert attributes_of(spans[-1])["ml.model.version"] != attributes_of(spans[-2])["ml.model.version"]
    assert attributes_of(spans[-1])["ml.input.rows"] == 1


def test_models_are_not_kept(hooked: Recorder, data: Data) -> None:
    """What is kept about a model goes with it, and a new model at the same address is another."""
    models = mlspan.runtime.current().emitter.models  # type: ignore[union-attr]
    for shift in range(5):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0 + shift)).fit(*data)
        model.predict(data[0])
        del model
        gc.collect()
        assert len(models.entries) == 0
    versions = {attributes_of(span)["ml.model.version"] for span in hooked.spans() if span.name.startswith("predict")}
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
    assert [scope_of(span)["ml.model.task"] for span in spans] == [
        "multilabel",
        "multilabel",
        "transformation",
        "other",
    ]


def test_classes_in_a_list(hooked: Recorder, data: Data) -> None:
    """A classifier that keeps its classes in a list has one output, and its answers are among them."""

    class Rule(ClassifierMixin, BaseEstimator):
        def fit(self, X: Any, y: Any = None) -> "Rule":
            self.classes_ = ["ham", "spam"]
            return self

        def predict(self, X: Any) -> Any:
            return np.where(X[:, 0] > 0, "spam", "ham")

    said = Rule().fit(*data).predict(data[0])
    span = hooked.spans()[-1]
    scope = scope_of(span)
    assert (scope["ml.model.task"], scope["ml.prediction.classes"]) == ("classification", ("ham", "spam"))
    found = decode(attributes_of(span)["ml.payload"])
    assert [scope["ml.prediction.classes"][index] for index in found.predictions[:, 0]] == said.tolist()


def test_property_that_raises(hooked: Recorder, data: Data) -> None:
    """An estimator whose properties raise is traced without what they would have told."""

    class Shy(ClassifierMixin, BaseEstimator):
        @property
        def classes_(self) -> Any:
            raise RuntimeError("not now")

        def predict(self, X: Any) -> Any:
            return np.zeros(len(X), int)

    assert Shy().predict(data[0]).tolist() == [0] * 60
    assert "ml.prediction.classes" not in scope_of(one(hooked))
