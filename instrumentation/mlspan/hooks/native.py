"""Stage 1 for predictors that are no estimators: XGBoost's and LightGBM's boosters, ONNX Runtime's sessions.

A library is one small file beside this one, a `Library`: which methods predict, what a call was given, what its result
means. This file waits until the user's code imports it, wraps the methods, and puts them back; `native_calls` makes the
spans. Guarantee: imports no library; ``uninstrument`` restores every attribute. docs/native.md says what is captured.
"""

import types
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from mlspan import runtime
from mlspan.config import Options
from mlspan.emit import Emitter
from mlspan.guard import guarded
from mlspan.hooks.base import original_of, restore, when_imported, wrap_function
from mlspan.hooks.native_calls import Changes, Library, NativeCalls, Predicts


class Part:
    """One library's hook, as the runtime puts it on and takes it off."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._running: runtime.Runtime | None = None
        self._owners: list[tuple[type, tuple[str, ...]]] = []

    def install(self, running: runtime.Runtime) -> None:
        """When the library is there."""
        self._running = running

        def patch(module: types.ModuleType) -> None:
            if self._running is running and runtime.current() is running and not self._owners:
                self._patch(self._library.owner(module), running.emitter)

        when_imported(self._library.name, patch)

    def remove(self) -> None:
        """Put the library's own methods back."""
        self._running = None
        while self._owners:
            restore(*self._owners.pop())

    def _patch(self, cls: type, emitter: Emitter) -> None:
        library = self._library
        calls = NativeCalls(library, emitter)
        for name in dict.fromkeys((*library.predicts, *library.changes, *library.trains)):
            # A method may be inherited; `instrument_model` may have wrapped it before, as that of any model.
            owner = next((part for part in cls.__mro__ if name in vars(part)), None)
            if owner is None:
                continue
            value = vars(owner)[name]
            original = original_of(value) or value
            if not isinstance(original, types.FunctionType):
                continue
            traced: Any
            if name in library.predicts:
                traced = Predicts(calls, name, original)
            else:
                traced = Changes(emitter, name in library.changes, name in library.trains)
            setattr(owner, name, wrap_function(original, traced))
            self._owners.append((owner, (name,)))


class NativeInstrumentor(BaseInstrumentor):
    """Makes every outermost prediction of one library's models a span.

    Options of `instrument`: the fields of `mlspan.config.Settings`, and ``tracer_provider``.
    """

    configuration: ClassVar[type] = Options
    """How OpenTelemetry's declarative configuration knows the options."""
    library: ClassVar[Library]

    def instrumentation_dependencies(self) -> Collection[str]:
        """What is instrumented, in which versions: the one distribution of several that is here."""
        dependencies = self.library.dependencies
        return (next(filter(_is_installed, dependencies), dependencies[0]),)

    def _instrument(self, **kwargs: Any) -> None:
        # The loader skips its own check of each instrumentor once one library of our distribution is there.
        conflict = self._check_dependency_conflicts()
        if conflict is not None:
            raise DependencyConflictError(conflict)
        _begin(self.library, kwargs)

    def _uninstrument(self, **_: Any) -> None:
        _end(self.library)


@guarded("native: instrument", None)
def _begin(library: Library, options: dict[str, Any]) -> None:
    provider = options.pop("tracer_provider", None)
    runtime.begin(library.name, Part(library), options, provider)


@guarded("native: uninstrument", None)
def _end(library: Library) -> None:
    runtime.end(library.name)


def _is_installed(dependency: str) -> bool:
    try:
        version(dependency.partition(" ")[0])
    except PackageNotFoundError:
        return False
    return True
