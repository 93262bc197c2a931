"""Stage 1, scikit-learn: every estimator, now and defined later, its own and third parties'.

Reads the subclasses of ``sklearn.base.BaseEstimator`` and the mixins in their bases; waits with all of it until the
user's code imports scikit-learn. Guarantee: imports no framework; ``uninstrument`` restores every attribute of every
class. Source of the class rules: scikit-learn's developer guide, "Developing scikit-learn estimators".
"""

import functools
import types
from collections.abc import Callable, Collection, Iterable
from typing import Any, ClassVar, Final

from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from mlspan import runtime
from mlspan.config import Options
from mlspan.guard import guarded
from mlspan.hooks.base import when_imported

DEPENDENCIES: Final = ("scikit-learn >= 1.3",)


class SklearnInstrumentor(BaseInstrumentor):
    """Makes every outermost call of a scikit-learn estimator a span.

    Options of `instrument`: the fields of `mlspan.config.Settings`, and ``tracer_provider``.
    """

    configuration: ClassVar[type] = Options
    """How OpenTelemetry's declarative configuration knows the options."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """What is instrumented, in which versions."""
        return DEPENDENCIES

    def _instrument(self, **kwargs: Any) -> None:
        # The loader skips its own check of each instrumentor once one library of our distribution is there.
        conflict = self._check_dependency_conflicts()
        if conflict is not None:
            raise DependencyConflictError(conflict)
        _begin(kwargs)

    def _uninstrument(self, **kwargs: Any) -> None:
        _end()


@guarded("sklearn: instrument", None)
def _begin(options: dict[str, Any]) -> None:
    provider = options.pop("tracer_provider", None)
    runtime.start(options, provider)
    when_imported("sklearn.base", _adopt_all)


@guarded("sklearn: uninstrument", None)
def _end() -> None:
    while _watched:
        owner, original, replacement = _watched.pop()
        if vars(owner).get("__init_subclass__") is replacement:
            owner.__init_subclass__ = original
    runtime.stop()
