"""What a user calls: instrument, uninstrument, instrument_model. (`prediction_context` and `feedback` have files of
their own.)

Guarantee: no call raises for a reason of ours.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_DISABLED_INSTRUMENTATIONS
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from mlspan import runtime
from mlspan.config import OUTPUTS, VALID_STEPS, depth
from mlspan.guard import failed, warn_once
from mlspan.hooks import torch as torch_hook
from mlspan.hooks.lightgbm import LightGBMInstrumentor
from mlspan.hooks.onnxruntime import OnnxRuntimeInstrumentor
from mlspan.hooks.sklearn import SklearnInstrumentor
from mlspan.hooks.torch import TorchInstrumentor
from mlspan.hooks.xgboost import XGBoostInstrumentor
from mlspan.identity import is_native
from mlspan.inputs.tensors import KINDS
from mlspan.models import register

M = TypeVar("M")

INSTRUMENTORS: Final[dict[str, type[BaseInstrumentor]]] = {
    "mlspan_sklearn": SklearnInstrumentor,
    "mlspan_torch": TorchInstrumentor,
    "mlspan_xgboost": XGBoostInstrumentor,
    "mlspan_lightgbm": LightGBMInstrumentor,
    "mlspan_onnxruntime": OnnxRuntimeInstrumentor,
}
"""Entry point -> instrumentor, as in pyproject.toml."""

_logger = logging.getLogger(__name__)


def instrument(**options: Any) -> None:
    """Do what ``opentelemetry-instrument`` does for the libraries that mlspan knows.

    Libraries that are not installed, or switched off by ``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS``, are passed over. The
    SDK is the user's: set up before or after this. Under ``opentelemetry-instrument`` there is nothing left to do but
    what the options say.

    Args:
        options: fields of `mlspan.config.Settings`, which win over the environment, and ``tracer_provider``.
    """
    disabled = {name.strip() for name in os.environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "").split(",")}
    for name, instrumentor in INSTRUMENTORS.items():
        if disabled & {name, "*"}:
            _logger.debug("%s is disabled by %s", name, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS)
            continue
        try:
            singleton = instrumentor()
            if singleton.is_instrumented_by_opentelemetry:
                if not options:
                    continue
                singleton.uninstrument()  # opentelemetry-instrument came first, without these options
            singleton.instrument(raise_exception_on_conflict=True, **options)
        except DependencyConflictError as error:
            found = error.conflict.found or getattr(error.conflict, "found_any", None)
            _logger.log(logging.ERROR if found else logging.DEBUG, "%s: %s", name, error)
        except Exception:  # noqa: BLE001 - the user's program starts without us
            failed("api: instrument")


def uninstrument() -> None:
    """Put back everything that `instrument` and `instrument_model` replaced."""
    for instrumentor in INSTRUMENTORS.values():
        if instrumentor().is_instrumented_by_opentelemetry:
            instrumentor().uninstrument()
    runtime.stop()


def instrument_model(
    model: M,
    name: str | None = None,
    version: str | None = None,
    feature_names: Sequence[str] | None = None,
    task: str | None = None,
    classes: Sequence[object] | None = None,
    output: str | None = None,
    input: str | None = None,  # noqa: A002 - the user's word for it
    steps: bool | int | None = None,
) -> M:
    """Trace this object as a model, and call it by this name; the way for classes that are no scikit-learn estimators.

    Of a torch module, direct calls of ``forward`` are traced then, too.

    What is said here holds for this object (not for its copies) and wins over the settings; what is left out is as for
    any model. Calling it again says everything anew.

    Args:
        model: any object whose class has methods like ``predict(X)``.
        name: the model's name, as its users know it.
        version: its version; without one, a fingerprint of the fitted model.
        feature_names: names of the input's columns, for inputs without names.
        task: one of classification, regression, multilabel, clustering, outlier_detection, transformation, other.
        classes: the names of its classes, in the order of its outputs or of ``classes_``; of a multilabel model those
            of its outputs.
        output: of a torch module, booster or inference session, what its output is: one of auto, probabilities,
            log_probabilities, logits, labels, values, embedding.
        input: of a torch module or inference session, what its input is: one of columns, image, tokens, sequence,
            vector.
        steps: levels of child spans for the model's parts; True: 3; False: none, whatever the settings say.

    Returns:
        The same object.
    """
    try:
        names = None if feature_names is None else tuple(map(str, feature_names))
        texts = None if classes is None else tuple(map(str, classes))
        register(
            model,
            name,
            version,
            names,
            task,
            texts,
            _one_of("output", output, OUTPUTS),
            _one_of("input", input, KINDS),
            _depth(steps),
        )
        running = runtime.ensure()
        running.wrapping.adopt(type(model))
        running.emitter.models.reset(model)
        if torch_hook.is_module(model):
            torch_hook.adopt(model)
        elif not running.wrapping.has_wrapped(type(model)) and not is_native(model):
            warn_once("api: instrument_model", "%s has no method that could be traced", type(model).__qualname__)
    except TypeError:
        warn_once("api: instrument_model", "%s takes no weak reference: not traced", type(model).__qualname__)
    except Exception:  # noqa: BLE001 - the user has his model
        failed("api: instrument_model")
    return model


def _one_of(name: str, value: str | None, valid: Sequence[str]) -> str | None:
    if value is not None and value not in valid:
        warn_once(f"api: {name}", "instrument_model: %s is %r; valid: %s", name, value, ", ".join(valid))
        return None
    return value


def _depth(value: bool | int | None) -> int | None:
    try:
        return None if value is None else depth(value)
    except (KeyError, TypeError, ValueError):
        warn_once("api: steps", "instrument_model: steps is %r; valid: %s", value, VALID_STEPS)
        return None
