"""OpenTelemetry for predictive models: the application side.

``opentelemetry-instrument python app.py`` needs none of these functions; they are for what it cannot know.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlspan.api import instrument as instrument
    from mlspan.api import instrument_model as instrument_model
    from mlspan.api import uninstrument as uninstrument
    from mlspan.ground_truth import feedback as feedback
    from mlspan.prediction import PredictionContext as PredictionContext
    from mlspan.prediction import prediction_context as prediction_context

    __version__: str

__all__ = [
    "PredictionContext",
    "__version__",
    "feedback",
    "instrument",
    "instrument_model",
    "prediction_context",
    "uninstrument",
]

_HOMES = {
    "PredictionContext": "mlspan.prediction",
    "feedback": "mlspan.ground_truth",
    "instrument": "mlspan.api",
    "instrument_model": "mlspan.api",
    "prediction_context": "mlspan.prediction",
    "uninstrument": "mlspan.api",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the processor imports mlspan.semconv through this file and needs none of it.
    if name == "__version__":
        metadata = import_module("importlib.metadata")
        try:
            value: Any = metadata.version("mlspan")
        except metadata.PackageNotFoundError:
            value = "unknown"  # copied into a program without its metadata
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
