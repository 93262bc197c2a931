"""Many model objects, versions and types of columns: what they share, and what goes with them."""

import copy
import pickle
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlspan import runtime
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.spans import attributes_of, scope_of

Data = tuple[np.ndarray, np.ndarray]
Hook = Callable[..., Recorder]


def carry(recorder: Recorder) -> list[bool]:
    """Of each span, whether it carries rows."""
    return ["ml.payload" in attributes_of(span) for span in recorder.spans()]


def test_objects_of_one_version_share_a_tracer(hook: Hook, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that loads the model anew for each task keeps its rows, also while the ones before live on."""
    monkeypatch.setattr("mlspan.models.MAX_SCHEMAS", 3)
    recorder = hook(model_name="fraud", model_version="7")
    stored = pickle.dumps(LogisticRegression().fit(*data))
    recorder.spans()
    loaded = [pickle.loads(stored) for _ in range(10)]
    for model in loaded:
        model.predict(data[0][:1])
    assert carry(recorder) == [True] * 10


def test_a_model_after_a_training_job_keeps_its_rows(hooked: Recorder, data: Data) -> None:
    """Fits have no version, so that they share a tracer; the versions of some hundred folds leave room for more."""
    for C in range(1, 61):
        cross_val_score(LogisticRegression(C=float(C)), *data, cv=5)
    model = LogisticRegression().fit(*data)
    hooked.spans()
    model.predict(data[0][:1])
    assert carry(hooked) == [True]


@pytest.mark.parametrize("values", [(True, False, None), (True, False, 1, 2), (None, True, 3.5)])
def test_booleans_that_are_missing_or_numbers_make_few_schemas(hook: Hook, values: tuple[Any, ...]) -> None:
    """Frames of one row, made of dictionaries: a column that was numeric once stays so."""
    recorder = hook(model_name="m", model_version="1")
    model = DummyClassifier().fit([[0]], [0])
    recorder.spans()
    chosen = random.Random(0)
    for _ in range(300):
        model.predict(pd.DataFrame([{f"k{j}": chosen.choice(values) for j in range(10)}]))
    spans = recorder.spans()
    assert all("ml.payload" in attributes_of(span) for span in spans)
    scopes = [span.instrumentation_scope for span in spans]
    types = [scope.attributes["ml.feature.types"] for scope in scopes if scope is not None and scope.attributes]
    # One more for each column that turns out to hold numbers, and then no other.
    assert len(set(types)) <= 11
    assert len(set(types[-100:])) == 1


def test_a_fit_during_the_first_look_is_not_missed(hook: Hook, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of a model while another thread fitted it is not kept for later calls."""
    recorder = hook(operations=["predict"])
    looking, fitted = threading.Event(), threading.Event()

    class Slow(ClassifierMixin, BaseEstimator):
        def fit(self, X: Any, y: Any) -> "Slow":
            self.classes_ = np.unique(y)
            return self

        def predict(self, X: Any) -> Any:
            return self.classes_[[0] * len(X)]

    def read(model: object, version: str | None) -> Any:
        state = describe(model, version)
        if not fitted.is_set():
            looking.set()
            fitted.wait(10)
        return state

    X, y = data
    model = Slow().fit(X, np.array(["a", "b"])[y])
    running = runtime.current()
    assert running is not None
    describe = running.emitter.models.describe
    monkeypatch.setattr(running.emitter.models, "describe", read)
    serving = threading.Thread(target=model.predict, args=(X[:1],))
    serving.start()
    assert looking.wait(10)
    model.fit(X, np.array(["c", "d"])[y])
    fitted.set()
    serving.join()
    recorder.spans()
    model.predict(X[:1])
    [span] = recorder.spans()
    assert attributes_of(span)["ml.prediction.class"] == "c"


class Champion(ClassifierMixin, BaseEstimator):
    """Answers with the model that it is given."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def classes_(self) -> Any:
        """The model's."""
        return self.model.classes_

    def predict_proba(self, X: Any) -> Any:
        """The model's."""
        return self.model.predict_proba(X)


def swapped(case: str, old: Any, new: Any) -> Any:
    """A holder of the old model; what puts the new one in its place."""
    if case == "attribute":
        holder: Any = Champion(old)
        return holder, lambda: setattr(holder, "model", new)
    holder = make_pipeline(StandardScaler(), old)
    holder[0].fit(np.eye(4))
    if case == "set_params":
        return holder, lambda: holder.set_params(logisticregression=new)
    return holder, lambda: holder.steps.__setitem__(-1, ("new", new))


@pytest.mark.parametrize("case", ["attribute", "set_params", "steps"])
def test_a_part_that_is_replaced_makes_another_version(hooked: Recorder, data: Data, case: str) -> None:
    """Classes and version are those of the model that answers; without a change the model is not looked at again."""
    X, y = data
    old = LogisticRegression().fit(X, np.array(["approve", "deny"])[y])
    new = LogisticRegression().fit(X, np.array(["deny", "review"])[y])
    holder, swap = swapped(case, old, new)
    holder.predict_proba(X[:1])
    holder.predict_proba(X[:1])
    swap()
    answer = holder.predict_proba(X[:1])
    said = [attributes_of(span) for span in hooked.spans() if "predict_proba" in span.name]
    versions = [one["ml.model.version"] for one in said]
    assert versions[0] == versions[1] != versions[2]
    assert said[2]["ml.prediction.class"] == ("deny", "review")[int(answer[0].argmax())]


def test_a_part_at_the_address_of_the_one_before_it(hooked: Recorder, data: Data) -> None:
    """A service that lets go of its model and then loads another one has another version, wherever that lies."""
    X, y = data
    holder = Champion(LogisticRegression(C=0.01).fit(X, y))
    new = LogisticRegression().fit(X, y)
    holder.predict_proba(X[:1])
    address, holder.model = id(holder.model), None
    made = [copy.copy(new)]
    while id(made[-1]) != address and len(made) < 10_000:
        made.append(copy.copy(new))
    holder.model = made[-1]
    holder.predict_proba(X[:1])
    versions = [attributes_of(span)["ml.model.version"] for span in hooked.spans() if "predict_proba" in span.name]
    assert versions[0] != versions[1]


def test_a_booster_that_is_loaded_makes_another_version(hooked: Recorder, data: Data, tmp_path: Path) -> None:
    """A wrapper that lives on while its `load_model` reads another model."""
    X, y = data
    for name, truth in (("three", np.arange(len(y)) % 3), ("two", y)):
        xgboost.XGBClassifier(n_estimators=2).fit(X, truth).save_model(tmp_path / f"{name}.json")
    model = xgboost.XGBClassifier()
    hooked.spans()
    for name in ("three", "two"):
        model.load_model(tmp_path / f"{name}.json")
        model.predict_proba(X[:1])
    first, second = hooked.spans()
    assert attributes_of(first)["ml.model.version"] != attributes_of(second)["ml.model.version"]
    assert [scope_of(span)["ml.prediction.classes"] for span in (first, second)] == [("0", "1", "2"), ("0", "1")]
    assert "ml.prediction.class" in attributes_of(second)
