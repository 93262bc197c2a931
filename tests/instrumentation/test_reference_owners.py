"""References that an instrumented fit leaves: which model a file and the figures in it belong to."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.model_selection
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    RidgeCV,
    TweedieRegressor,
)
from sklearn.metrics import f1_score, log_loss, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
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
    """What lies in the folder, in the order of the fits."""
    profiles = [from_json(path.read_text()) for path in folder.iterdir()]
    order = [written.path.name for written in reference._written.values()]
    return sorted(profiles, key=lambda found: [found.model_version in name for name in order], reverse=True)


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


class _ScoredByF1(LogisticRegression):
    """A model of the user's whose score is his own."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """F1."""
        return float(f1_score(y, self.predict(X), sample_weight=sample_weight))


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
    (KNeighborsClassifier(), "accuracy"),
    (PoissonRegressor(), None),
    (make_pipeline(StandardScaler(), TweedieRegressor()), None),
    (_ScoredByF1(), None),
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


def _performance(folder: Path) -> list[Mapping[str, float]]:
    """The performance in each file, in the order of the fits."""
    return [profile.performance for profile in _profiles(folder)]


@pytest.mark.parametrize("again", [pd.DataFrame, np.array, lambda X: X.tolist()], ids=["frame", "copy", "lists"])
def test_training_data_in_a_new_object(folder: Path, again: Callable[[Any], Any]) -> None:
    """A score on the rows that a model was fitted on promises nothing, in whatever object they come."""
    model = LogisticRegression().fit(X, Y)
    model.score(again(X), Y)
    assert _performance(folder) == [{}]


def test_training_frame_selected_anew(folder: Path) -> None:
    """Columns that are selected for the fit and again for the score are the same data."""
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = RandomForestClassifier(n_estimators=3).fit(frame[["a", "b"]], Y)
    model.score(frame[["a", "b"]], Y)
    assert _performance(folder) == [{}]


def test_object_with_other_values(folder: Path) -> None:
    """An object whose values are others by now is other data: a place in memory says nothing."""
    values = X.copy()
    model = LogisticRegression().fit(values, Y)
    values += 1
    score = model.score(values, Y)
    assert _performance(folder) == [{"accuracy": score, "rows": 300}]


def test_hook_and_denied_columns(hook: Callable[..., Any], tmp_path: Path) -> None:
    """Data are known again also by columns that may not be captured; the content hook is not asked for that."""
    seen = []

    def look(columns: dict[str, Any]) -> dict[str, Any]:
        seen.append(1)
        return columns

    hook(reference_dir=str(tmp_path), deny=["a"], capture_hook=look)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = LogisticRegression().fit(frame, Y)
    count = len(seen)
    model.score(frame.copy(), Y)
    assert _performance(tmp_path) == [{}]
    model.score(frame.assign(a=-frame["a"]), Y)
    assert _performance(tmp_path) != [{}]
    assert len(seen) == count


def test_score_is_of_the_scored_model(folder: Path) -> None:
    """A score is not the performance of another model of the same class and parameters, nor of the next fit."""
    first = LogisticRegression().fit(X[:200], Y[:200])
    score = first.score(X[200:], Y[200:])
    second = LogisticRegression().fit(RANDOM.normal(size=(100, 3)), Y[:100])
    assert _performance(folder) == [{"accuracy": score, "rows": 100}, {}]
    second.fit(X[:50], Y[:50])
    assert _performance(folder)[1:] == [{}, {}]


def test_search_is_of_the_searching_model(folder: Path) -> None:
    """A search's figures are its own: an equal search with other figures takes none of them over."""
    first, second = (_search(scoring=["roc_auc", "f1"], refit="f1") for _ in range(2))
    first.fit(X[:200], Y[:200])
    second.fit(X[200:], Y[200:])
    first.score(X[250:], Y[250:])
    both = _performance(folder)
    assert [found["rows"] for found in both] == [50, 100]
    assert both[0]["roc_auc"] == first.cv_results_["mean_test_roc_auc"][first.best_index_]


def test_cross_validation_on_other_data_leaves_older_models_alone(folder: Path) -> None:
    """A model with figures keeps them when an equal recipe is cross-validated on other data."""
    model = LogisticRegression().fit(X[:200], Y[:200])
    score = model.score(X[200:], Y[200:])
    sklearn.model_selection.cross_val_score(LogisticRegression(), X[100:], Y[100:])
    assert _performance(folder) == [{"accuracy": score, "rows": 100}]


def test_cross_validation_of_the_next_model(folder: Path) -> None:
    """Figures go to the models fitted on the data, or else to the last one, and never mix with those of other data."""
    cross_validate = sklearn.model_selection.cross_validate
    cross_validate(LogisticRegression(), X[:200], Y[:200], scoring=["accuracy", "roc_auc"])
    first = LogisticRegression().fit(X[:200], Y[:200])
    before = _performance(folder)
    cross_validate(LogisticRegression(), X[100:], Y[100:], scoring=["accuracy"])
    second = LogisticRegression().fit(X[100:], Y[100:])
    assert _performance(folder)[0] == before[0]
    assert set(before[0]) == {"accuracy", "accuracy_sd", "roc_auc", "roc_auc_sd", "rows"}
    assert set(_performance(folder)[1]) == {"accuracy", "accuracy_sd", "rows"}
    cross_validate(LogisticRegression(), X[:200].copy(), Y[:200], scoring=["neg_log_loss"])
    assert {"log_loss" in found for found in _performance(folder)} == {True, False}
    del first, second


def test_cross_validation_after_a_fit_on_a_part(folder: Path) -> None:
    """A model that nothing is known of yet takes the figures of a later run on more rows, and of the next on them."""
    older = LogisticRegression().fit(X[:100], Y[:100])
    last = LogisticRegression().fit(X[:200], Y[:200])
    sklearn.model_selection.cross_val_score(last, X, Y)
    sklearn.model_selection.cross_val_score(last, X, Y, scoring="roc_auc")
    assert [set(found) for found in _performance(folder)] == [
        set(),
        {"accuracy", "accuracy_sd", "roc_auc", "roc_auc_sd", "rows"},
    ]
    del older


def test_other_columns_are_another_model(folder: Path) -> None:
    """Figures of a run on other columns are not those of a model of the same recipe."""
    sklearn.model_selection.cross_val_score(LogisticRegression(), X[:, :2], Y)
    model = LogisticRegression().fit(X, Y)
    sklearn.model_selection.cross_val_score(model, X[:, :2], Y)
    assert _performance(folder) == [{}]


def test_a_file_is_of_the_model_that_wrote_it_last(hook: Callable[..., Any], tmp_path: Path) -> None:
    """A score of a model whose file another one has replaced is not written into it."""
    hook(reference_dir=str(tmp_path), model_name="fraud-model", model_version="7")
    first = LogisticRegression().fit(X[:200], Y[:200])
    second = LogisticRegression(C=2).fit(X[:150], Y[:150])
    first.score(X[200:], Y[200:])
    assert _performance(tmp_path) == [{}]
    score = second.score(X[200:], Y[200:])
    assert _performance(tmp_path) == [{"accuracy": score, "rows": 100}]
