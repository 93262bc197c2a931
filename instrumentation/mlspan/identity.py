"""Stage 1, who the model is: name, class, task, framework, and which objects it is made of.

Reads an estimator object, writes plain texts. Guarantee: imports no framework, changes nothing, and takes any object;
what cannot be read is left out. Run once per model and fit, not per call.
"""

import contextlib
import inspect
import logging
import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

NATIVE: Final = frozenset({("xgboost", "Booster"), ("lightgbm", "Booster"), ("onnxruntime", "InferenceSession")})
"""Library and class of predictors that are no estimators: hooks/native.py."""
_MODULE: Final = frozenset({("torch", "Module")})
MAX_PARTS: Final = 512
"""Objects looked at when a model is searched for the estimators it holds."""
MAX_DEPTH: Final = 8
MAX_KEYS: Final = 256

FRAMEWORKS: Final = {
    "sklearn": "scikit-learn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "imblearn": "imbalanced-learn",
    "torch": "torch",
}
"""Top-level module -> the name of the library, as packages are called."""

TASKS: Final = {
    "classifier": "classification",
    "regressor": "regression",
    "clusterer": "clustering",
    "outlier_detector": "outlier_detection",
    "transformer": "transformation",
}
"""scikit-learn's estimator type -> ml.model.task."""

_logger = logging.getLogger(__name__)


def read(target: object, name: str) -> Any:
    """An attribute, or None: a property may raise anything, and an unfitted model often does."""
    try:
        return getattr(target, name, None)
    except Exception:  # noqa: BLE001 - the user's property
        return None


def delegates(model: object) -> list[object]:
    """The model, the fitted estimator whose answers it passes on, the one whose answers that passes on, …."""
    found = [model]
    while len(found) < MAX_DEPTH:
        last = found[-1]
        following = _last_step(last)
        for name in ("best_estimator_", "estimator_"):
            # Never "or": estimators have lengths, and unfitted ones fail to tell theirs.
            if following is None:
                following = _estimator(read(last, name))
        if following is None or any(following is known for known in found):
            break
        found.append(following)
    return found


def delegate(model: object) -> object | None:
    """The last step of a pipeline, or the estimator that the user gave to a meta-estimator; None for others."""
    following = _last_step(model)
    return _given_estimator(model) if following is None else following


def default_name(model: object) -> str:
    """The class's name; for a pipeline, a search or a meta-estimator with that of the estimator which the user gave
    it, at any depth: ``Pipeline(LogisticRegression)``. The same before and after a fit."""
    original = read(model, "original_name") if type(model).__module__.startswith("torch.jit") else None
    if isinstance(original, str):
        return original  # of the class that was scripted or traced
    leaf, depth = model, 0
    while depth < MAX_DEPTH:
        following = delegate(leaf)
        if following is None:
            break
        leaf, depth = following, depth + 1
    name = type(model).__name__
    return f"{name}({type(leaf).__name__})" if depth else name


def is_native(model: object) -> bool:
    """Whether one of the hooks for predictors that are no estimators is for it, without importing a library."""
    return _is_made_from(model, NATIVE)


def _is_made_from(model: object, classes: frozenset[tuple[str, str]]) -> bool:
    return any((part.__module__.partition(".")[0], part.__name__) in classes for part in type(model).__mro__)


def class_name(model: object) -> str:
    """Module and qualified name of the model's class."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def framework(model: object) -> tuple[str, str | None]:
    """Name and version of the library that the class, or the nearest known one it is made from, comes from."""
    tops = [cls.__module__.partition(".")[0] for cls in type(model).__mro__ if isinstance(cls.__module__, str)]
    top = next((top for top in tops if top in FRAMEWORKS), tops[0] if tops else "")
    version = read(sys.modules.get(top), "__version__")
    return FRAMEWORKS.get(top, top), version if isinstance(version, str) else None


def task(model: object) -> str:
    """One of the values of ml.model.task."""
    kind = _estimator_type(model)
    if kind in {"classifier", "regressor"} and any(map(_several_outputs, delegates(model))):
        return "multilabel"
    if kind in TASKS:
        return TASKS[kind]
    if read(type(model), "predict") is None and read(type(model), "transform") is not None:
        return "transformation"
    return "other"


def feature_names(model: object) -> tuple[str, ...] | None:
    """The names of the columns that an estimator was fitted on, in their order; of dictionaries the keys."""
    found = read(model, "feature_names_in_")
    if not isinstance(found, (list, np.ndarray)) or not len(found):
        return _keys(model)
    names = tuple(map(str, found))
    # LightGBM calls the columns of a matrix so.
    is_named = any(name != f"Column_{at}" for at, name in enumerate(names))
    return names if is_named else None


def _keys(model: object) -> tuple[str, ...] | None:
    """The keys that a pipeline's `DictVectorizer` knows, where these are few enough to be columns."""
    for part in delegates(model):
        first = next(iter(_steps(read(part, "steps"))), None)
        if type(first).__name__ == "DictVectorizer":
            found, separator = read(first, "feature_names_"), read(first, "separator")
            if isinstance(found, list) and isinstance(separator, str) and separator:
                keys = {str(name).partition(separator)[0] for name in found}
                return tuple(sorted(keys)) if 0 < len(keys) <= MAX_KEYS else None
    return None


def parts(model: object) -> tuple[int, ...]:
    """`id` of every estimator that the model holds, at any depth; looks at MAX_PARTS objects at most."""
    found: set[int] = set()
    waiting: list[object] = [model]
    seen = 0
    while waiting and seen < MAX_PARTS:
        holder = waiting.pop()
        for value in _values(holder):
            seen += 1
            if seen >= MAX_PARTS:
                break
            if isinstance(value, (list, tuple, dict)):
                waiting.append(value)
            elif _is_part(value) and id(value) not in found:
                found.add(id(value))
                waiting.append(value)
    found.discard(id(model))
    return tuple(found)


Members = tuple[tuple[str, tuple["weakref.ref[object]", ...]], ...]
"""By attribute, the estimators that it holds. No ids: a new estimator may have the address of the one before it."""


def members(model: object) -> Members:
    """The attributes that hold an estimator, booster or torch module, and a pipeline's steps: all may be replaced."""
    fields = read(model, "__dict__")
    if not isinstance(fields, dict):
        return ()
    found: list[tuple[str, tuple[weakref.ref[object], ...]]] = []
    for name, value in list(fields.items()):
        parts = _steps(value) if name == "steps" else [value] if _is_held(value) else []
        with contextlib.suppress(TypeError):  # that takes no weak reference
            if parts:
                found.append((name, tuple(map(weakref.ref, parts))))
    return tuple(found)


def has_members(model: object, known: Members) -> bool:
    """Whether these are its members still; asked at every call of a model that has any."""
    fields = model.__dict__
    for name, references in known:
        value = fields.get(name)
        parts = _steps(value) if name == "steps" else (value,)
        if len(parts) != len(references):
            return False
        for part, reference in zip(parts, references, strict=True):
            if part is None or reference() is not part:
                return False
    return True


def _steps(steps: object) -> Sequence[object]:
    """The estimators of a pipeline's steps; "passthrough" and None are none."""
    if type(steps) is not list:
        return ()
    found = [step[1] for step in steps if type(step) is tuple and len(step) == 2]
    return [part for part in found if part is not None and type(part) is not str]


def _is_held(value: object) -> bool:
    return _is_part(value) or _is_made_from(value, _MODULE)


def _is_part(value: object) -> bool:
    """Whether it is an estimator, or a booster that one holds."""
    return _estimator(value) is not None or is_native(value)


def _last_step(model: object) -> object | None:
    steps = read(model, "steps")
    if isinstance(steps, list):
        for step in reversed(steps):
            if isinstance(step, tuple) and len(step) == 2 and not isinstance(step[1], (str, type(None))):
                return _estimator(step[1])
    return None


def _given_estimator(model: object) -> object | None:
    """The constructor's argument of this name: ensembles of trees have such an attribute, but the user did not ask."""
    found = _estimator(read(model, "estimator"))
    if found is None:
        return None
    try:
        return found if "estimator" in inspect.signature(type(model)).parameters else None
    except (TypeError, ValueError):
        return None


def _values(holder: object) -> Iterator[object]:
    if isinstance(holder, dict):
        return iter(list(holder.values()))
    if isinstance(holder, (list, tuple)):
        return iter(holder)
    fields = read(holder, "__dict__")
    return iter(list(fields.values()) if isinstance(fields, dict) else ())


def _estimator(value: object) -> object | None:
    if isinstance(value, type) or read(type(value), "fit") is None:
        return None
    return value


def _estimator_type(model: object) -> str | None:
    kind = read(model, "_estimator_type")
    if isinstance(kind, str):
        return kind
    # scikit-learn 1.6 and newer; models that know no tags have said so above or say nothing.
    utils = sys.modules.get("sklearn.utils")
    get_tags = read(utils, "get_tags")
    if get_tags is None or read(type(model), "__sklearn_tags__") is None:
        return None
    try:
        kind = get_tags(model).estimator_type
    except Exception:
        _logger.debug("tags of %s cannot be read", type(model), exc_info=True)
        return None
    return kind if isinstance(kind, str) else None


def _several_outputs(model: object) -> bool:
    classes = read(model, "classes_")
    # A list of texts or numbers is one output's classes; of several outputs each has its own.
    if isinstance(classes, list) and any(isinstance(part, (list, np.ndarray)) for part in classes):
        return True
    if read(model, "multilabel_") is True:
        return True
    kind = read(read(model, "_label_binarizer"), "y_type_")  # a ridge classifier says so nowhere else
    if isinstance(kind, str) and kind.startswith("multilabel"):
        return True
    if read(model, "out_activation_") == "softmax":
        return False  # a network's outputs are the classes of one answer
    outputs = read(model, "n_outputs_")
    return isinstance(outputs, int) and outputs > 1
