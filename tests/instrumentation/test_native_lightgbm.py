"""LightGBM's boosters: one span per prediction of the user's own, with rows and the answer that the objective names."""

import copy
import gc
import inspect
import pickle
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from opentelemetry.trace import StatusCode

import mlspan
from mlspan.payload import PREDICTION_CLASS, PREDICTION_NUMBER, SCORE_PROBABILITY
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.inputs import code
from tests.instrumentation.native_models import ROWS, data, lgb, one

Hook = Callable[..., Recorder]


def test_span(hook: Hook) -> None:
    """A one-row prediction has exactly these attributes, and the scope says who the model is."""
    booster = lgb()
    recorder = hook(model_name="fraud-model", model_version="7")
    answer = float(booster.predict(data()[0][:1])[0])
    seen = one(recorder)
    assert type(seen.attributes.pop("ml.payload")) is bytes
    assert seen.attributes == {
        "ml.operation.name": "predict",
        "ml.model.name": "fraud-model",
        "ml.model.version": "7",
        "ml.input.rows": 1,
        "ml.input.columns": 4,
        "ml.prediction.class": str(int(answer > 0.5)),
        "ml.prediction.score": pytest.approx(max(answer, 1 - answer)),
    }
    assert seen.scope == {
        "ml.model.name": "fraud-model",
        "ml.model.version": "7",
        "ml.model.class": "lightgbm.basic.Booster",
        "ml.model.task": "classification",
        "ml.framework.name": "lightgbm",
        "ml.framework.version": lightgbm.__version__,
        "ml.feature.names": ("x0", "x1", "x2", "x3"),
        "ml.feature.types": ("numeric",) * 4,
        "ml.prediction.classes": ("0", "1"),
    }
    assert seen.span.name == "predict fraud-model"
    assert seen.cells[0].tolist() == data()[0][0].tolist()


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_several_classes(hooked: Recorder, objective: str) -> None:
    """Probabilities of several classes are those that the call answered."""
    answer = np.asarray(lgb(objective, 3).predict(data()[0]))
    payload = one(hooked).payload
    assert payload is not None
    assert (payload.prediction_kind, payload.score_kind) == (PREDICTION_CLASS, SCORE_PROBABILITY)
    np.testing.assert_allclose(payload.scores, answer, rtol=1e-6)
    assert payload.predictions[:, 0].tolist() == answer.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("objective", "task"),
    [
        ("regression", "regression"),
        ("quantile", "regression"),
        ("poisson", "regression"),
        ("cross_entropy", "regression"),
    ],
)
def test_numbers(hooked: Recorder, objective: str, task: str) -> None:
    """Regressions answer numbers; one row has its number as an attribute."""
    answer = np.asarray(lgb(objective).predict(data()[0][:1]))
    seen = one(hooked)
    assert seen.payload is not None
    assert seen.scope["ml.model.task"] == task
    assert seen.payload.prediction_kind == PREDICTION_NUMBER
    assert seen.attributes["ml.prediction.value"] == pytest.approx(float(answer[0]))


def test_ranking(hooked: Recorder) -> None:
    """A ranking answers numbers, and is no regression."""
    X, y = data()
    settings = {"objective": "lambdarank", "num_threads": 1, "verbose": -1, "min_data_in_leaf": 5}
    booster = lightgbm.train(settings, lightgbm.Dataset(X, y, group=[30, 30]), 2)
    booster.predict(X)
    seen = one(hooked)
    assert seen.payload is not None
    assert seen.scope["ml.model.task"] == "other"
    assert seen.payload.prediction_kind == PREDICTION_NUMBER


def test_unknown_objective(hooked: Recorder) -> None:
    """Of an objective of the user's own nothing is claimed, until he says what it answers."""
    X, y = data()

    def logistic(answer: Any, about: lightgbm.Dataset) -> tuple[Any, Any]:
        p = 1 / (1 + np.exp(-answer))
        return p - about.get_label(), p * (1 - p)

    settings = {"objective": logistic, "num_threads": 1, "verbose": -1, "min_data_in_leaf": 5}
    booster = lightgbm.train(settings, lightgbm.Dataset(X, y), 2)
    booster.predict(X[:1])
    seen = one(hooked)
    assert seen.payload is not None
    assert seen.cells.shape == (1, 4)
    assert (seen.payload.predictions.size, seen.payload.scores.size) == (0, 0)
    assert not {"ml.prediction.class", "ml.prediction.value"} & set(seen.attributes)
    mlspan.instrument_model(booster, output="logits", classes=["fine", "fraud"])
    for _ in range(2):  # the first call decides, and says it already
        answer = np.asarray(booster.predict(X))
        seen = one(hooked)
        assert seen.scope["ml.prediction.classes"] == ("fine", "fraud")
        assert seen.payload is not None
        np.testing.assert_allclose(seen.payload.scores[:, 1], 1 / (1 + np.exp(-answer)), rtol=1e-5)


@pytest.mark.parametrize("flags", [{"raw_score": True}, {"pred_leaf": True}, {"pred_contrib": True}])
def test_what_is_no_answer(hooked: Recorder, flags: dict[str, bool]) -> None:
    """Raw scores, leaves and contributions are counted, and nothing is claimed of them."""
    booster = lgb()
    booster.predict(data()[0], **flags)
    booster.predict(data()[0], 0, None, *(name in flags for name in ("raw_score", "pred_leaf", "pred_contrib")))
    for span in hooked.spans():
        assert set(span.attributes or {}) == {
            "ml.operation.name",
            "ml.model.name",
            "ml.model.version",
            "ml.input.rows",
            "ml.input.columns",
        }


def test_inputs(hooked: Recorder) -> None:
    """Frames, with their categories, and sparse matrices are read as those of scikit-learn's models."""
    X, y = data()
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame["d"] = pd.Categorical(np.where(X[:, 3] > 0, "UA", "AA"))
    settings = {"objective": "binary", "num_threads": 1, "verbose": -1, "min_data_in_leaf": 5}
    booster = lightgbm.train(settings, lightgbm.Dataset(frame, y), 2)
    booster.predict(frame)
    seen = one(hooked)
    assert seen.names == ("a", "b", "c", "d")
    assert seen.scope["ml.feature.types"] == ("numeric", "numeric", "numeric", "categorical")
    assert seen.payload is not None
    assert set(seen.payload.cells.view(np.uint32)[:, 3].tolist()) == {code("UA"), code("AA")}
    other = lgb()
    other.predict(scipy.sparse.csr_matrix(X))
    assert one(hooked).cells.tolist() == X.tolist()
    other.predict(pl.DataFrame(X, schema=list("abcd")).to_arrow())
    assert one(hooked).names == ("a", "b", "c", "d")


def test_own_names(hooked: Recorder) -> None:
    """An array has the names that the model was trained with."""
    X, y = data()
    settings = {"objective": "binary", "num_threads": 1, "verbose": -1, "min_data_in_leaf": 5}
    booster = lightgbm.train(settings, lightgbm.Dataset(X, y, feature_name=["a", "b", "c", "d"]), 2)
    booster.predict(X)
    assert one(hooked).names == ("a", "b", "c", "d")


@pytest.mark.parametrize("kind", [str, Path])
def test_file(hooked: Recorder, tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    """A file is not read a second time: its rows are counted, with the answers."""
    file = tmp_path / "rows.csv"
    np.savetxt(file, np.column_stack((data()[1], data()[0])), delimiter=",")
    answer = np.asarray(lgb().predict(kind(file)))
    seen = one(hooked)
    assert seen.attributes["ml.capture.error"].startswith("unsupported input: ")
    assert seen.attributes["ml.input.rows"] == ROWS
    assert seen.payload is not None
    assert seen.payload.cells.shape == (ROWS, 0)
    np.testing.assert_allclose(seen.payload.scores[:, 1], answer, rtol=1e-6)


def test_many_rows(hook: Hook) -> None:
    """Of many rows a sample is captured, with the answers of the same rows."""
    X = np.random.default_rng(0).standard_normal((5_000, 4))
    booster = lgb()
    recorder = hook(max_rows=100)
    answer = np.asarray(booster.predict(X))
    payload = one(recorder).payload
    assert payload is not None
    assert payload.indices is not None
    assert (payload.total_rows, len(payload.cells)) == (5_000, 100)
    np.testing.assert_array_equal(payload.cells.view("<f4"), X[payload.indices].astype(np.float32))
    np.testing.assert_allclose(payload.scores[:, 1], answer[payload.indices], rtol=1e-6)


def test_wrappers_and_training(hooked: Recorder) -> None:
    """What the wrappers ask of their booster is part of their own span; training makes none."""
    X, y = data()
    model = lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1, min_child_samples=5)
    model.fit(X, y)
    model.predict_proba(X)
    model.predict(X)
    assert hooked.names() == ["fit LGBMClassifier", "predict_proba LGBMClassifier", "predict LGBMClassifier"]
    settings = {"objective": "binary", "num_threads": 1, "verbose": -1, "min_data_in_leaf": 5}
    lightgbm.train({**settings, "metric": "auc"}, lightgbm.Dataset(X, y), 2, valid_sets=[lightgbm.Dataset(X, y)])
    lightgbm.train(settings, lightgbm.Dataset(X, y, free_raw_data=False), 2, init_model=model.booster_)
    lightgbm.cv(settings, lightgbm.Dataset(X, y), 2, nfold=2)
    assert hooked.names() == []
    model.booster_.predict(X)
    assert hooked.names() == ["predict Booster"]


def test_version(hooked: Recorder, tmp_path: Path) -> None:
    """The version is another one after more rounds, and the same for a copy and in another process."""
    X, y = data()
    booster = lightgbm.Booster(
        {"objective": "binary", "num_threads": 1, "verbose": -1, "min_data_in_leaf": 5}, lightgbm.Dataset(X, y)
    )
    booster.update()
    versions = []
    for _ in range(2):
        booster.predict(X)
        copy.deepcopy(booster).predict(X)
        versions.append([span.attributes["ml.model.version"] for span in hooked.spans()])  # type: ignore[index]
        booster.update()
    assert versions[0][0] == versions[0][1]
    assert versions[1][0] == versions[1][1]
    assert versions[0] != versions[1]
    booster.rollback_one_iter()
    booster.predict(X)
    assert one(hooked).attributes["ml.model.version"] == versions[1][0]
    booster.save_model(tmp_path / "model.txt")
    program = (
        "import sys, lightgbm\nfrom mlspan.fingerprint import fingerprint\n"
        "print('fp-' + fingerprint(lightgbm.Booster(model_file=sys.argv[1])))"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "model.txt")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == versions[1][0]


def test_nothing_is_changed(recorder: Recorder) -> None:
    """Results, exceptions with their tracebacks, signatures and pickles are those of before; all is put back."""
    methods = ("predict", "update", "rollback_one_iter", "model_from_string", "shuffle_models", "set_leaf_output")
    before = {name: vars(lightgbm.Booster)[name] for name in methods}
    signatures = {name: str(inspect.signature(method)) for name, method in before.items()}
    booster, X = lgb(), data()[0]

    def look() -> tuple[object, ...]:
        with pytest.raises(lightgbm.basic.LightGBMError) as caught:
            booster.predict(X[:, :2])
        frames = [frame.name for frame in traceback.extract_tb(caught.tb)]
        pickled = np.asarray(pickle.loads(pickle.dumps(booster)).predict(X)).tobytes()
        bound = np.asarray(pickle.loads(pickle.dumps(booster.predict))(X)).tobytes()
        return np.asarray(booster.predict(X)).tobytes(), str(caught.value), frames, pickled, bound

    expected = look()
    mlspan.instrument(tracer_provider=recorder.provider)
    try:
        assert look() == expected
        failed = next(span for span in recorder.spans() if span.status.status_code is StatusCode.ERROR)
        assert dict(failed.attributes or {})["error.type"] == "lightgbm.basic.LightGBMError"
        assert {name: str(inspect.signature(vars(lightgbm.Booster)[name])) for name in methods} == signatures
    finally:
        mlspan.uninstrument()
    assert {name: vars(lightgbm.Booster)[name] for name in methods} == before


def test_models_are_not_kept(hooked: Recorder) -> None:
    """A booster that the program drops is gone."""
    booster = lgb()
    booster.predict(data()[0])
    gone = weakref.ref(booster)
    del booster
    gc.collect()
    assert gone() is None
