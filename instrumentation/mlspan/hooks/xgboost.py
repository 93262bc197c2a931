"""Stage 1, XGBoost: calls of ``Booster.predict`` and ``Booster.inplace_predict`` from the user's own code.

The scikit-learn wrappers are estimators, and what they call is part of their spans. What the outputs mean is the
objective's to say: https://xgboost.readthedocs.io/en/stable/parameter.html#learning-task-parameters.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from mlspan.capture import Input
from mlspan.hooks.native import NativeInstrumentor
from mlspan.hooks.native_calls import Asked, Library
from mlspan.meanings import Found, Meaning, as_values
from mlspan.models import Registration

_NO_ANSWER: Final = ("output_margin", "pred_leaf", "pred_contribs", "approx_contribs", "pred_interactions")
_NUMBERS: Final = ("reg:", "count:", "survival:", "rank:")
_RANKS: Final = ("rank:", "survival:cox")
"""Objectives whose outputs order rows, and are not the quantity itself."""


class XGBoost(Library):
    """See the module."""

    name = "xgboost"
    dependencies = ("xgboost >= 2.1", "xgboost-cpu >= 2.1")
    predicts = ("predict", "inplace_predict")
    changes = ("update", "boost", "load_model", "load_config", "set_param")
    trains = ("update", "eval_set")

    def owner(self, module: Any) -> type:
        """The booster."""
        found: type = module.Booster
        return found

    def ask(self, method: str, model: Any, given: Mapping[str, Any]) -> Asked | None:  # noqa: ARG002
        """The matrix; margins, leaves and contributions are no answers, and predictions for training no calls."""
        if given.get("training"):
            return None
        if method == "inplace_predict":
            return Asked(given.get("data"), given.get("predict_type", "value") == "value")
        return Asked(given.get("data"), not any(given.get(name) for name in _NO_ANSWER))

    def describe(self, model: Any, told: Registration | None) -> tuple[Meaning, tuple[str, ...] | None]:
        """By the objective."""
        learner = json.loads(model.save_config())["learner"]
        parameters = learner["learner_model_param"]
        form, width, task = _form(
            learner["objective"]["name"], int(parameters.get("num_class", 0)), int(parameters.get("num_target", 1))
        )
        names = model.feature_names
        return Meaning("Booster", told, form, width, task), tuple(map(str, names)) if names else None

    def find(self, asked: Asked, result: Any, captured: Input) -> Found | None:  # noqa: ARG002
        """The result itself."""
        values = as_values(result, captured)
        return None if values is None else Found(values)


class XGBoostInstrumentor(NativeInstrumentor):
    """Makes every outermost prediction of an `xgboost.Booster` a span."""

    library = XGBoost()


def _form(objective: str, classes: int, targets: int) -> tuple[str, int, str | None]:
    """What the outputs are (""; unknown), their columns, and the task where that does not follow."""
    if objective == "multi:softprob":
        return "probabilities", classes, None
    if objective == "multi:softmax":
        return "labels", classes, None
    if objective in {"binary:logistic", "binary:logitraw"}:
        form = "probabilities" if objective == "binary:logistic" else "logits"
        return form, targets, "multilabel" if targets > 1 else None
    if objective == "binary:hinge":
        return "labels", 2, None
    if objective.startswith(_NUMBERS):
        return "values", targets, "other" if objective.startswith(_RANKS) else "regression"
    return "", 1, None
