"""Stage 1, what a model promises: the performance that the user's own evaluation has measured.

Reads results of scikit-learn's cross-validation, searches and ``score``, writes figures by metric name (the last part
of ``ml.quality.*``), with their standard deviation over the folds. What was cross-validated is not the object that is
fitted afterwards, but a copy: the two are matched by class and parameters. A ``score`` or a search is of one object,
and goes to a copy of the figures that `mlspan.reference` keeps for it. Memory: the last 64 evaluations, figures only.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.columns import text_of
from mlspan.dataset import Dataset
from mlspan.fingerprint import IGNORED, fingerprint
from mlspan.identity import MAX_DEPTH, delegate, read

MAX_EVALUATIONS: Final = 64
UNSET: Final = "warn"
"""A `scoring` that scikit-learn has not decided on yet: None, with a warning."""

METRICS: Final[Mapping[str, tuple[str, float]]] = {
    "accuracy": ("accuracy", 1),
    "balanced_accuracy": ("balanced_accuracy", 1),
    "precision": ("precision", 1),
    "recall": ("recall", 1),
    "f1": ("f1", 1),
    "roc_auc": ("roc_auc", 1),
    "roc_auc_ovr": ("roc_auc", 1),
    "neg_log_loss": ("log_loss", -1),
    "neg_brier_score": ("brier", -1),
    "neg_mean_absolute_error": ("mae", -1),
    "neg_root_mean_squared_error": ("rmse", -1),
    "r2": ("r2", 1),
}
"""scikit-learn's name of a score: our name of the metric, and its sign there."""

_KNOWN_SCORES: Final = ("sklearn.", "catboost.")
"""Libraries whose classes score by the kind of model where they do so by themselves."""
_DEVIANCE: Final = frozenset({"_GeneralizedLinearRegressor"})
"""scikit-learn's classes of regressors that score by the explained deviance."""

MACRO: Final[Mapping[str, str]] = {"precision_macro": "precision", "recall_macro": "recall", "f1_macro": "f1"}
"""Averages over all classes: ours are such for more than two classes, and of the last class for two."""


@dataclass
class Evaluation:
    """Figures of one model.

    Attributes:
        sources: who measured, latest last: "cross_validate", "cross_val_predict", "search", "score".
        metrics: value and standard deviation over the folds (NaN: unknown) by metric name.
        rows: rows of the latest evaluation.
        data: what was cross-validated on; None: nothing yet.
    """

    sources: list[str] = field(default_factory=list)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    rows: int = 0
    data: Dataset | None = None

    def add(
        self, source: str, metrics: Mapping[str, tuple[float, float]], rows: int, data: Dataset | None = None
    ) -> None:
        """Take over newer figures; those of a cross-validation, which say on what `data`, replace all on other data."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value[0])}
        if finite:
            if data is not None:
                if self.data is not None and not self.data.is_same(data):
                    self.sources, self.metrics = [], {}
                self.data = data
            self.metrics.update(finite)
            self.sources = [*(known for known in self.sources if known != source), source]
            self.rows = rows

    def is_free_for(self, data: Dataset) -> bool:
        """Whether a cross-validation on these data mixes with no figures on other data."""
        return not self.metrics if self.data is None else self.data.is_same(data)

    def performance(self, n_classes: int) -> dict[str, float]:
        """The figures as a profile keeps them: "accuracy", "accuracy_sd" where known, and "rows"."""
        figures: dict[str, float] = {}
        for name, (value, deviation) in self.metrics.items():
            if name in MACRO:
                if n_classes == 2:
                    continue
                name = MACRO[name]  # noqa: PLW2901 what the processor calls it
            figures[name] = value
            if math.isfinite(deviation):
                figures[f"{name}_sd"] = deviation
        if figures:
            figures["rows"] = float(self.rows)
        return figures


_evaluations: dict[str, Evaluation] = {}


def recipe(model: Any) -> str:
    """Class and parameters as one text; the same for a model, its copies, and any of them fitted.

    Nested estimators count by class, since theirs are among the parameters too; how much of the machine to use does
    not.
    """
    parameters = {
        name: type(value).__qualname__ if hasattr(value, "get_params") else _parameter(value)
        for name, value in model.get_params(deep=True).items()
        if name.rpartition("__")[2] not in IGNORED
    }
    return f"{type(model).__module__}.{type(model).__qualname__} {fingerprint(parameters)}"


def evaluation_of(model: Any) -> Evaluation:
    """What is known of models made like this one; a new, empty evaluation when nothing is."""
    key = recipe(model)
    found = _evaluations.get(key)
    if found is None:
        found = Evaluation()
        while len(_evaluations) >= MAX_EVALUATIONS:
            del _evaluations[next(iter(_evaluations))]
        _evaluations[key] = found
    return found


def cross_validated(key: str, data: Dataset) -> Evaluation:
    """A copy of what cross-validation found for models of this recipe, for one that was fitted on `data`."""
    found = _evaluations.get(key)
    if found is None or (found.data is not None and not found.data.has_columns_of(data)):
        return Evaluation()
    return replace(found, sources=list(found.sources), metrics=dict(found.metrics))


def forget() -> None:
    """Drop all evaluations."""
    _evaluations.clear()


def fold_metrics(scores: Mapping[str, Any], default: str | None) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over folds.

    Args:
        scores: (n_folds,) scores by scikit-learn's name; "score" is the only one of several.
        default: the name that "score" stands for; None: unknown.
    """
    found = {}
    for name, values in scores.items():
        asked = (default or "") if name == "score" else name
        metric = (asked, 1.0) if asked in MACRO else METRICS.get(asked)
        if metric is not None:
            folds = np.asarray(values, np.float64)
            deviation = float(folds.std(ddof=1)) if len(folds) > 1 else math.nan
            found[metric[0]] = (metric[1] * float(folds.mean()), deviation)
    return found


def default_score(model: Any, scoring: object) -> str | None:
    """The name of the score that `scoring` asks for: None is the model's own."""
    if isinstance(scoring, str):
        return scoring
    return own_score(model) if scoring is None else None


def own_score(model: Any) -> str | None:
    """scikit-learn's name of what ``model.score`` measures; None: unknown."""
    scorer = model
    for _ in range(MAX_DEPTH):
        owner = next((cls for cls in type(scorer).__mro__ if "score" in vars(cls)), None)
        if owner is None or owner.__module__ == "sklearn.base":
            break  # the mixins measure by the kind of model, whatever a `scoring` beside them is for
        scoring = read(scorer, "scoring") if "scoring" in _parameters(owner) else None
        if scoring is not None and not (isinstance(scoring, str) and scoring == UNSET):
            return _chosen(scoring, read(scorer, "refit"))
        following = delegate(scorer)
        if following is None:
            if not _is_of_kind(owner):
                return None
            break
        scorer = following
    return score_of_kind(model)


def _is_of_kind(owner: type) -> bool:
    """Whether the ``score`` that this class defines measures what scikit-learn's mixins do."""
    return owner.__module__.startswith(_KNOWN_SCORES) and owner.__name__ not in _DEVIANCE


def score_of_kind(model: Any) -> str | None:
    """What scikit-learn's mixins measure: accuracy of a classifier, r2 of a regressor; None for others."""
    kind = getattr(model, "_estimator_type", None)
    if kind is None and hasattr(model, "__sklearn_tags__"):
        kind = model.__sklearn_tags__().estimator_type
    return {"classifier": "accuracy", "regressor": "r2"}.get(kind or "")


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return {}


def _chosen(scoring: object, refit: object) -> str | None:
    """The name in a `scoring`; of several scores the one that `refit` names."""
    if isinstance(scoring, (list, tuple, set, Mapping)):
        if not isinstance(refit, str):
            return None
        scoring = scoring.get(refit) if isinstance(scoring, Mapping) else refit
        return scoring if isinstance(scoring, str) else refit
    return scoring if isinstance(scoring, str) else None


def prediction_metrics(y: NDArray[Any], result: NDArray[Any], method: str, score: str | None) -> dict[str, float]:
    """Figures of out-of-fold predictions.

    Args:
        y: (n_rows,) labels.
        result: (n_rows,) predictions, or (n_rows, n_classes) probabilities in the order of the sorted labels.
        method: "predict" or "predict_proba"; nothing is known of others.
        score: "accuracy" for a classifier, "r2" for a regressor (`score_of_kind`).
    """
    if y.ndim != 1 or len(result) != len(y) or not len(y):
        return {}
    if method == "predict" and result.ndim == 1:
        if score == "accuracy":
            return {"accuracy": float(np.mean(np.asarray(result == y)))}
        if score == "r2":
            return _regression_metrics(np.asarray(y, np.float64), np.asarray(result, np.float64))
    if method == "predict_proba" and result.ndim == 2:
        classes, index = np.unique(y, return_inverse=True)
        if len(classes) != result.shape[1]:
            return {}
        rows = np.arange(len(y))
        tiny = float(np.finfo(np.float64).eps)
        right = result[rows, index]
        squares = (result**2).sum(axis=1) - 2 * right + 1
        return {
            "accuracy": float(np.mean(result.argmax(axis=1) == index)),
            "log_loss": float(-np.log(np.clip(right, tiny, 1)).mean()),
            "brier": float(squares.mean() / 2),
        }
    return {}


def _regression_metrics(y: NDArray[np.float64], result: NDArray[np.float64]) -> dict[str, float]:
    errors = result - y
    spread = float(((y - y.mean()) ** 2).sum())
    figures = {"mae": float(np.abs(errors).mean()), "rmse": math.sqrt(float((errors**2).mean()))}
    if spread > 0:
        figures["r2"] = 1 - float((errors**2).sum()) / spread
    return figures


def _parameter(value: Any) -> Any:
    """A parameter that means the same whether it is a list of estimators or of their fitted selves."""
    if isinstance(value, (list, tuple)):
        return [_parameter(part) for part in value]
    if hasattr(value, "get_params") and not isinstance(value, type):
        return type(value).__qualname__
    return text_of(value) if isinstance(value, np.generic) else value
