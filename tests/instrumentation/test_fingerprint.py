"""Fingerprints: the same for the same fitted state everywhere, another one after another fit."""

import copy
import datetime as dt
import functools
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlspan import fingerprint as module
from mlspan.fingerprint import fingerprint
from tests.instrumentation.fingerprint_models import data, models

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    """All models, fitted on the same data as in the other processes."""
    return models(0)


def test_stable_across_processes(fitted: dict[str, Any], tmp_path: Path) -> None:
    """Fitted again under another hash seed, or loaded from a file there, models have the same fingerprints."""
    here = {name: fingerprint(model) for name, model in fitted.items()}
    joblib.dump(fitted, tmp_path / "models.joblib")
    environ = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.instrumentation.fingerprint_models", str(tmp_path / "models.joblib")],
        env=environ, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    there = json.loads(done.stdout)
    assert there["loaded"] == here
    assert there["fresh"] == here


def test_changes_with_the_data(fitted: dict[str, Any]) -> None:
    """Fitted on other data, every model has another fingerprint; and no two of them share one."""
    other = models(1)
    prints = [fingerprint(model) for model in (*fitted.values(), *other.values())]
    assert len(set(prints)) == len(prints)
    assert all(re.fullmatch("[0-9a-f]{12}", text) for text in prints)


def test_survives_copies_and_use(fitted: dict[str, Any]) -> None:
    """Pickling in any protocol, copying, memory mapping and predicting do not change a fingerprint, nor the model."""
    frame, _ = data(0)
    for name, model in fitted.items():
        before = fingerprint(model)
        assert fingerprint(copy.deepcopy(model)) == before, name
        for protocol in (2, 5):
            assert fingerprint(pickle.loads(pickle.dumps(model, protocol))) == before, name
        state = pickle.dumps(model)
        fingerprint(model)
        assert pickle.dumps(model) == state, name
        if hasattr(model, "predict") and name != "dbscan":
            X = frame if name == "pipeline" else frame.drop(columns="kind")
            model.predict(X.to_numpy() if name == "outliers" else X)
        assert fingerprint(model) == before, name


def test_mapped_models(tmp_path: Path) -> None:
    """Arrays that joblib maps from the file count like those in memory."""
    X = np.random.default_rng(0).random((50, 3))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, X[:, 0] > 0.5)
    joblib.dump(model, tmp_path / "model")
    assert fingerprint(joblib.load(tmp_path / "model", mmap_mode="r")) == fingerprint(model)


def test_ignores_the_machine() -> None:
    """How many cores, how loud, and measured times do not tell models apart; parameters and the class do."""
    X, y = np.random.default_rng(0).random((50, 3)), np.arange(50) % 2
    plain = fingerprint(LogisticRegression().fit(X, y))
    assert fingerprint(LogisticRegression(verbose=0).set_params(verbose=0).fit(X, y)) == plain
    model = LogisticRegression().fit(X, y)
    model.verbose = 3
    model.n_jobs = 2
    assert fingerprint(model) == plain
    assert fingerprint(LogisticRegression(C=2).fit(X, y)) != plain
    assert fingerprint(LogisticRegression()) != plain


class Cached:
    """A model with a cached property, a lock, a lambda and a generator."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.generator = np.random.default_rng()
        self.function = np.log1p

    @functools.cached_property
    def doubled(self) -> int:
        """Kept in the instance once it was asked for."""
        return 2 * self.value


class Slotted:
    """A model without a dictionary."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


class Locked:
    """A model that cannot be pickled."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.lock = threading.Lock()


class Cyclic:
    """A model that refers to itself."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.me = [self]


class Hostile:
    """A model that fails whatever it is asked."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("kind", [Cached, Slotted, Locked, Cyclic])
def test_own_classes(kind: Any) -> None:
    """Models of the user's own classes count by their state, whether or not they can be pickled."""
    assert fingerprint(kind(1)) == fingerprint(kind(1)) != fingerprint(kind(2))


def test_caches_do_not_count() -> None:
    """A property that was computed and kept changes nothing."""
    model = Cached(1)
    before = fingerprint(model)
    assert model.doubled == 2
    assert fingerprint(model) == before


def test_hostile_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be looked at has the fingerprint of its class."""
    monkeypatch.setattr("mlspan.guard._raise", False)
    assert fingerprint(Hostile()) == fingerprint(Hostile()) != fingerprint(object())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True), (1, 1.0), (1, "1"), ("a", b"a"), ([1, 2], (1, 2)), ([1, 2], [2, 1]), ([[1], 2], [[1, 2]]),
        ({"a": 1}, {"a": 2}), ({1: "a"}, {"1": "a"}), ({1}, {2}), (None, 0), (np.float32(1), np.float64(1)),
        (np.zeros(2), np.zeros((2, 1))), (np.zeros(2, "f4"), np.zeros(1, "f8")), (np.log, np.exp), (len, abs),
        (np.array(["a"], object), np.array(["b"], object)), (sp.csr_array([[1]]), sp.csc_array([[1]])),
        (pd.Series([1]), pd.Series([2])), (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
        (np.ma.masked_array([1, 2], [False, True]), np.ma.masked_array([1, 2], [True, False])),
        (dt.date(2020, 1, 1), dt.date(2020, 1, 2)), (functools.partial(print, 1), functools.partial(print, 2)),
        (LogisticRegression, StandardScaler), (lambda: 0, len),
    ],
)  # fmt: skip
def test_different_values(one: Any, other: Any) -> None:
    """Values that differ in type, order, shape or content have different fingerprints."""
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(copy.deepcopy(one))


def test_same_values_in_another_form() -> None:
    """Order of dictionaries and sets, memory layout, byte order and hidden bytes of records do not count."""
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({1: "a", "b": 2}) == fingerprint({"b": 2, 1: "a"})
    assert fingerprint({"a", "b", "c"}) == fingerprint({"c", "b", "a"})
    X = np.arange(12.0).reshape(3, 4)
    for form in (np.asfortranarray(X), X.astype(">f8"), np.repeat(X, 2, 1)[:, ::2]):
        assert fingerprint(form) == fingerprint(X)
    padded = np.dtype([("a", "u1"), ("b", "f8")], align=True)
    clean, dirty = np.zeros(2, padded), np.zeros(2, padded)
    dirty.view("u1")[1] = 9
    assert fingerprint(clean) == fingerprint(dirty)
    matrix = sp.csr_array([[0, 1.0]])
    before = fingerprint(matrix)
    assert matrix.has_sorted_indices
    assert fingerprint(matrix) == before


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large arrays a spread sample is read, of large collections too; depth and number of objects end."""
    monkeypatch.setattr(module, "MAX_ARRAY_BYTES", 1 << 16)
    big = np.zeros(1_000_000)
    changed = big.copy()
    changed[:] = 1
    assert fingerprint(big) != fingerprint(changed)
    assert fingerprint(big) == fingerprint(np.asfortranarray(big.reshape(1000, 1000)).reshape(-1))
    strided = np.zeros((2_000, 1_000))[::2]
    assert fingerprint(strided) == fingerprint(np.zeros((1_000, 1_000)))
    monkeypatch.setattr(module, "MAX_ITEMS", 100)
    assert fingerprint(list(range(10_000))) != fingerprint([0] * 10_000)
    assert fingerprint(dict.fromkeys(map(str, range(10_000)), 1)) != fingerprint({})
    assert fingerprint(dict.fromkeys(range(10_000), 1)) != fingerprint({})
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    assert re.fullmatch("[0-9a-f]{12}", fingerprint(deep))
    monkeypatch.setattr(module, "MAX_OBJECTS", 10)
    assert fingerprint([[at] for at in range(50)]) == fingerprint([[at] for at in range(50)])


state = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers(), children, max_size=4)
        | st.tuples(children, children)
    ),
    max_leaves=20,
)


@given(state)
def test_any_state_survives_pickling(value: Any) -> None:
    """What pickling gives back has the same fingerprint."""
    assert fingerprint(pickle.loads(pickle.dumps(value))) == fingerprint(value)
