"""References that an instrumented fit leaves: which model a file and the figures in it belong to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelBinarizer, StandardScaler

from mlspan import evaluation, reference
from mlspan.profile import Profile, from_json

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(300, 3))
Y = (X[:, 0] + RANDOM.normal(size=300) > 0).astype(int)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Each test starts without evaluations and references."""
    evaluation.forget()
    reference.forget()
    yield
    evaluation.forget()
    reference.forget()


@pytest.fixture
def folder(hook: Callable[..., Any], tmp_path: Path) -> Path:
    """Where the references of all fits in the test go."""
    hook(reference_dir=str(tmp_path))
    return tmp_path


def _profiles(folder: Path) -> list[Profile]:
    """What lies in the folder, oldest first."""
    return [from_json(path.read_text()) for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)]


def test_a_metric_does_not_overwrite_the_reference(hook: Callable[..., Any], tmp_path: Path) -> None:
    """The transformer that a metric of scikit-learn fits leaves the model's file of the same name alone."""
    hook(reference_dir=str(tmp_path), model_name="fraud-model", model_version="7")
    model = LogisticRegression().fit(X[:200], Y[:200])
    log_loss(Y[200:], model.predict_proba(X[200:]))
    (profile,) = _profiles(tmp_path)
    assert (profile.task, profile.rows, len(profile.features)) == ("classification", 200, 3)


@pytest.mark.parametrize(
    "model",
    [
        LabelBinarizer(),
        make_pipeline(StandardScaler(), PCA(2)),
        make_pipeline(PCA(2), "passthrough"),
        GridSearchCV(make_pipeline(StandardScaler(), PCA()), {"pca__n_components": [1, 2]}, cv=2),
    ],
    ids=["transformer", "pipeline", "passthrough", "search"],
)
def test_transformers_leave_no_reference(folder: Path, model: Any) -> None:
    """What only transforms has no answers to be judged by, and leaves no file."""
    model.fit(Y if isinstance(model, LabelBinarizer) else X)
    assert not _profiles(folder)


@pytest.mark.parametrize(
    "model",
    [
        *(LinearRegression(), KMeans(2, n_init=1), DBSCAN(), IsolationForest(n_estimators=2)),
        *(make_pipeline(StandardScaler(), LogisticRegression()), make_pipeline(PCA(2), KMeans(2, n_init=1))),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_answers_leaves_a_reference(folder: Path, model: Any) -> None:
    """Regressors, classifiers, clusterers and outlier detectors leave a file, also behind transformers."""
    model.fit(X, Y)
    assert [profile.rows for profile in _profiles(folder)] == [300]
