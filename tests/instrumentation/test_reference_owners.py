"""References that an instrumented fit leaves: which model a file and the figures in it belong to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.model_selection
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.metrics import f1_score, log_loss, make_scorer
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


def _search(**options: Any) -> Any:
    return GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2, **options)


OWN_SCORES = [
    (LogisticRegression(), "accuracy"),
    (LinearRegression(), "r2"),
    (KMeans(), None),
    (_search(), "accuracy"),
    (_search(scoring="neg_log_loss"), "neg_log_loss"),
    (_search(scoring=make_scorer(f1_score)), None),
    (_search(scoring=["f1", "roc_auc"], refit="roc_auc"), "roc_auc"),
    (_search(scoring={"ours": "roc_auc", "f1": "f1"}, refit="ours"), "roc_auc"),
    (_search(scoring=["f1", "roc_auc"], refit=False), None),
    (GridSearchCV(LogisticRegressionCV(scoring="neg_log_loss"), {"Cs": [2, 3]}), "neg_log_loss"),
    (GridSearchCV(KMeans(), {"n_clusters": [2, 3]}), None),
    (LogisticRegressionCV(), "accuracy"),
    (LogisticRegressionCV(scoring="roc_auc"), "roc_auc"),
    (make_pipeline(StandardScaler(), LogisticRegressionCV(scoring="roc_auc")), "roc_auc"),
    (make_pipeline(StandardScaler(), LinearRegression()), "r2"),
    (BaggingClassifier(LogisticRegressionCV(scoring="roc_auc")), "accuracy"),
    (RidgeCV(scoring="neg_mean_absolute_error"), "r2"),
    (HistGradientBoostingClassifier(scoring="loss"), "accuracy"),
]


@pytest.mark.parametrize(("model", "name"), OWN_SCORES, ids=lambda value: repr(value)[:60])
def test_what_a_model_scores_by(hooked: object, model: Any, name: str | None) -> None:
    """A `scoring` counts where ``score`` goes by it, also of the last step; else the kind of model tells."""
    assert evaluation.own_score(model) == name


@pytest.mark.filterwarnings("ignore::FutureWarning")  # defaults of LogisticRegressionCV that are to change
@pytest.mark.parametrize("model", [_search(scoring="neg_log_loss"), LogisticRegressionCV(Cs=2, scoring="neg_log_loss")])
def test_score_by_the_models_own_scoring(folder: Path, model: Any) -> None:
    """What ``score`` of a search or a cross-validated model answers is noted as the metric that it is."""
    score = model.fit(X[:200], Y[:200]).score(X[200:], Y[200:])
    (profile,) = _profiles(folder)
    assert profile.performance["log_loss"] == pytest.approx(-score)
    assert "accuracy" not in profile.performance


def test_score_of_unknown_scoring_is_left_out(folder: Path) -> None:
    """A score that is none of our metrics is not noted as another one."""
    model = _search(scoring="neg_max_error").fit(X[:200], Y[:200])
    model.score(X[200:], Y[200:])
    (profile,) = _profiles(folder)
    assert profile.performance == {}


def test_cross_validated_search(folder: Path) -> None:
    """A search that is cross-validated counts by its own scoring; its predictions by the kind of model."""
    model = _search(scoring="neg_log_loss")
    scores = sklearn.model_selection.cross_val_score(model, X, Y, cv=3)
    found = evaluation.evaluation_of(model)
    assert found.metrics == {"log_loss": pytest.approx((-scores.mean(), scores.std(ddof=1)))}
    sklearn.model_selection.cross_val_predict(model, X, Y, cv=3)
    assert set(found.metrics) == {"log_loss", "accuracy"}
