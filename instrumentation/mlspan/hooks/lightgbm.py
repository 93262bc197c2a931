"""Stage 1, LightGBM: calls of ``Booster.predict`` from the user's own code.

The scikit-learn wrappers are estimators, and what they call is part of their spans. What the outputs mean is the
objective's to say: https://lightgbm.readthedocs.io/en/stable/Parameters.html#objective.
"""

from collections.abc import Mapping
from typing import Any, Final

from mlspan.capture import Input
from mlspan.hooks.native import NativeInstrumentor
from mlspan.hooks.native_calls import Asked, Library
from mlspan.meanings import Found, Meaning, as_values
from mlspan.models import Registration

_NO_ANSWER: Final = ("raw", "leaf", "contrib")
"""In the names of the arguments, and of their aliases, by which something else than the answer is asked for."""
_PROBABILITIES: Final = frozenset({"binary", "multiclass", "multiclassova"})
_NUMBERS: Final = frozenset(
    {
        *("regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie"),
        *("cross_entropy", "cross_entropy_lambda"),
    }
)
_RANKS: Final = frozenset({"lambdarank", "rank_xendcg"})


class LightGBM(Library):
    """See the module."""

    name = "lightgbm"
    dependencies = ("lightgbm >= 4.3",)
    predicts = ("predict",)
    changes = ("update", "rollback_one_iter", "model_from_string", "shuffle_models", "set_leaf_output")

    def owner(self, module: Any) -> type:
        """The booster."""
        found: type = module.Booster
        return found

    def ask(self, method: str, model: Any, given: Mapping[str, Any]) -> Asked | None:  # noqa: ARG002
        """The rows; raw scores, leaves and contributions are no answers."""
        is_other = any(given[name] for name in given if any(word in name for word in _NO_ANSWER))
        return Asked(given.get("data"), not is_other)

    def describe(self, model: Any, told: Registration | None) -> tuple[Meaning, tuple[str, ...] | None]:
        """By the objective, which the head of the model's text names."""
        lines = model.model_to_string(num_iteration=1).partition("\nTree=")[0].splitlines()
        head = dict(line.split("=", 1) for line in lines if "=" in line)
        objective = head.get("objective", "").partition(" ")[0]
        classes = int(head.get("num_class", "1"))
        form, task = "", None
        if objective in _PROBABILITIES:
            form = "probabilities"
        elif objective in _NUMBERS or objective in _RANKS:
            form, task = "values", "regression" if objective in _NUMBERS else "other"
        names = tuple(map(str, model.feature_name()))
        is_named = any(name != f"Column_{at}" for at, name in enumerate(names))
        return Meaning("Booster", told, form, classes, task), names if is_named else None

    def find(self, asked: Asked, result: Any, captured: Input) -> Found | None:  # noqa: ARG002
        """The result itself."""
        values = as_values(result, captured)
        return None if values is None else Found(values)


class LightGBMInstrumentor(NativeInstrumentor):
    """Makes every outermost prediction of a `lightgbm.Booster` a span."""

    library = LightGBM()
