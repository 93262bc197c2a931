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

    def _uninstrument(self, **_: Any) -> None:
        _end()


@guarded("sklearn: instrument", None)
def _begin(options: dict[str, Any]) -> None:
    provider = options.pop("tracer_provider", None)
    runtime.begin("sklearn", _Part(), options, provider)


@guarded("sklearn: uninstrument", None)
def _end() -> None:
    runtime.end("sklearn")


class _Part:
    """What the runtime puts on and takes off."""

    def install(self, _: runtime.Runtime) -> None:
        """When scikit-learn is there."""
        when_imported("sklearn.base", _adopt_all)

    def remove(self) -> None:
        """Estimators that are defined from now on stay as they are; the runtime restores the others."""
        while _watched:
            owner, original, replacement = _watched.pop()
            if vars(owner).get("__init_subclass__") is replacement:
                if original is None:
                    del owner.__init_subclass__
                else:
                    owner.__init_subclass__ = original


# (class, what its __init_subclass__ was: None for inherited, what it is)
_watched: list[tuple[Any, Any, Any]] = []
_being_defined: set[type] = set()


def _adopt_all(module: types.ModuleType) -> None:
    """``sklearn.base`` is there: wrap what exists, and watch for what comes."""
    running = runtime.current()
    base: type = module.BaseEstimator
    if running is None or running.base is base:
        return
    running.base = base
    existing: list[type] = list(_subclasses(base))
    mixins: list[type] = [value for value in vars(module).values() if isinstance(value, type)]
    classes: list[type] = [base, *existing, *mixins]
    owners = _owners({part for made in classes for part in made.__mro__})
    for owner in owners:
        _watch(owner, vars(owner)["__init_subclass__"])
    if not any(issubclass(base, owner) for owner in owners):
        _watch(base, None)
    for cls in existing:
        running.wrapping.adopt(cls)


def _subclasses(base: type) -> Iterable[type]:
    """The class and everything made from it, each once."""
    found = {base: None}
    waiting = [base]
    while waiting:
        made: list[type] = type.__subclasses__(waiting.pop())
        for cls in made:
            if cls not in found:
                found[cls] = None
                waiting.append(cls)
    return found


def _owners(classes: Iterable[type]) -> list[type]:
    return [cls for cls in classes if cls is not object and isinstance(vars(cls).get("__init_subclass__"), classmethod)]


def _watch(owner: Any, original: Any) -> None:
    """Hear of each new subclass when all of the ``__init_subclass__`` of its bases have run.

    scikit-learn's own wrap methods of the new class (``set_output``); the wrapper that is put on last comes off first.
    """

    @functools.wraps(object.__init_subclass__ if original is None else original.__func__)
    def __init_subclass__(cls: type, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - the name it replaces
        is_outermost = cls not in _being_defined
        _being_defined.add(cls)
        try:
            bound: Callable[..., None] = (
                super(owner, cls).__init_subclass__ if original is None else original.__get__(None, cls)
            )
            bound(*args, **kwargs)
        except BaseException as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        finally:
            if is_outermost:
                _being_defined.discard(cls)
        if is_outermost:
            _defined(cls)

    replacement: Any = classmethod(__init_subclass__)
    owner.__init_subclass__ = replacement
    _watched.append((owner, original, replacement))


@guarded("sklearn: new class", None)
def _defined(cls: type) -> None:
    running = runtime.current()
    if running is not None and running.base is not None and issubclass(cls, running.base):
        running.adopt_new(cls)
