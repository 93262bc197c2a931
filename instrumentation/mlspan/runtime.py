"""What is switched on in this process: the emitter, the wrapped classes, joblib's hook, the flushes.

At most one `Runtime` runs, for all frameworks; starting another ends it, and what `instrument_model` was told is kept
over both. A framework's hook is a `Part`: the first one begins the runtime, the last one ends it. Guarantee: `stop`
puts back every attribute that was replaced. Nothing runs at import; one lock.
"""

import os
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from opentelemetry.trace import TracerProvider

from mlspan import lifecycle
from mlspan.config import load_settings
from mlspan.emit import Emitter
from mlspan.hooks import joblib, model_selection
from mlspan.hooks.base import Wrapping
from mlspan.models import registered_models, registration

MAX_RECENT_CLASSES: Final = 64
"""Newly defined classes that are looked at again, for methods which they got after their definition."""


class Part(Protocol):
    """The hook of one framework."""

    def install(self, running: "Runtime") -> None:
        """Put it on, now or when the framework is imported."""

    def remove(self) -> None:
        """Take it off."""


class Runtime:
    """One instrumentation of this process.

    Args:
        options: the user's, by the names of `Settings`.
        tracer_provider: where tracers come from; None: the global one.

    Attributes:
        base: every object of this class is a model; None: only those are that `instrument_model` was given.
        options, tracer_provider: as given.
    """

    def __init__(self, options: Mapping[str, Any], tracer_provider: TracerProvider | None) -> None:
        self.options = dict(options)
        self.tracer_provider = tracer_provider
        self.emitter = Emitter(load_settings(options), tracer_provider, self.accepts)
        self.wrapping = Wrapping(self.emitter)
        self.base: type | None = None
        self._recent: deque[type] = deque(maxlen=MAX_RECENT_CLASSES)

    def accepts(self, model: object) -> bool:
        """Whether outermost calls of this object become spans."""
        base = self.base
        return (base is not None and isinstance(model, base)) or registration(model) is not None

    def adopt_new(self, cls: type) -> None:
        """Wrap the methods of a class that was just defined."""
        self.wrapping.adopt(cls)
        self._recent.append(cls)

    def adopt_recent(self) -> None:
        """Look again at newly defined classes: cloudpickle makes a class first and gives it its methods afterwards."""
        while self._recent:
            self.wrapping.adopt(self._recent.popleft())


_lock = threading.RLock()
_current: Runtime | None = None
_parts: dict[str, Part] = {}


def _after_fork() -> None:
    """Another thread may have held the lock."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def current() -> Runtime | None:
    """What runs, or None."""
    return _current


def begin(name: str, part: Part, options: Mapping[str, Any], tracer_provider: TracerProvider | None) -> None:
    """Put a framework's hook on.

    What runs already goes on, with all its parts, unless these options or this provider are others than its own: then
    all begin anew with them, the options of before holding where these say nothing.
    """
    with _lock:
        running = _current
        if running is not None:
            merged = {**running.options, **options}
            provider = tracer_provider or running.tracer_provider
            if merged != running.options or provider is not running.tracer_provider:
                parts = dict(_parts)
                for other in parts.values():
                    other.remove()
                running = start(merged, provider)
                for other in parts.values():
                    other.install(running)
                _parts.update(parts)
        else:
            running = start(options, tracer_provider)
        _parts[name] = part
        part.install(running)


def end(name: str) -> None:
    """Take a framework's hook off; with the last one, everything ends."""
    with _lock:
        part = _parts.pop(name, None)
        if part is not None:
            part.remove()
        if not _parts:
            stop()


def start(options: Mapping[str, Any] | None = None, tracer_provider: TracerProvider | None = None) -> Runtime:
    """Begin, or begin anew with these options."""
    global _current  # noqa: PLW0603 - one per process is the point
    with _lock:
        stop()
        runtime = Runtime(options or {}, tracer_provider)
        _current = runtime
        for model in registered_models():
            runtime.wrapping.adopt(type(model))
        joblib.install(runtime.adopt_recent)
        lifecycle.install(runtime.emitter)
        model_selection.install(runtime.emitter.settings)
        return runtime


def ensure() -> Runtime:
    """What runs; begins with the environment's settings when nothing does."""
    with _lock:
        return _current or start()


def stop() -> None:
    """End what runs, and put everything back; nothing happens when nothing runs."""
    global _current
    with _lock:
        while _parts:
            _parts.popitem()[1].remove()
        runtime, _current = _current, None
        if runtime is not None:
            runtime.emitter.is_enabled = False
            runtime.wrapping.restore()
            joblib.uninstall()
            lifecycle.uninstall()
            model_selection.uninstall()
