"""Stage 1, torch: every outermost call of a module, whatever its class.

Replaces `torch.nn.Module.__call__`, and nothing else; waits with it until the user's code imports torch. Guarantee:
imports no framework; ``uninstrument`` puts the attribute back; a module within a module costs one look at a context
variable more than without us; torch.compile sees what it would see without us. docs/torch.md says what is a model.

Why the wrapper carries torch's file name: dynamo skips frames by file, and skips torch's own entry point when it looks
for what to compile, so that its stand-in must be skipped as well. Where it is inlined instead (a module called
within a compiled function), ``is_dynamo_compiling`` is true, and dynamo sees the original alone.
"""

import functools
import types
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Final

from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from mlspan import runtime
from mlspan.config import Options
from mlspan.deferred import deferred
from mlspan.guard import failed, guarded, warn_once
from mlspan.hooks.base import when_imported
from mlspan.hooks.torch_calls import TorchCalls, inside
from mlspan.models import registered_models

DEPENDENCIES: Final = ("torch >= 2.6",)
_ENTRY: Final = ("_compiled_call_impl", "_call_impl")
"""The names that torch's own entry point uses, where it does what we know it to do."""


class TorchInstrumentor(BaseInstrumentor):
    """Makes every outermost call of a torch module a span.

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


@guarded("torch: instrument", None)
def _begin(options: dict[str, Any]) -> None:
    provider = options.pop("tracer_provider", None)
    runtime.begin("torch", _Part(), options, provider)


@guarded("torch: uninstrument", None)
def _end() -> None:
    runtime.end("torch")


class Patch:
    """What stands in the place of torch's own.

    Attributes:
        calls: what happens to calls.
    """

    def __init__(self, calls: TorchCalls, torch: types.ModuleType) -> None:
        self.calls = calls
        self._owner: Any = torch.nn.Module
        self._original = vars(self._owner)["__call__"]
        self._is_dynamo: Callable[[], bool] = getattr(
            torch.compiler, "is_dynamo_compiling", torch.compiler.is_compiling
        )
        # Whether dynamo looks at the frames of this thread: what runs then was compiled by the user as a function.
        self._callback: Callable[[], Any] = _eval_frame_callback(torch)
        self._replacement = self._wrap(self._original)
        self._owner.__call__ = self._replacement

    def restore(self) -> None:
        """Put it back, if it is still ours."""
        if vars(self._owner).get("__call__") is self._replacement:
            self._owner.__call__ = self._original

    def adopt(self, model: Any) -> None:
        """Trace direct calls of this module's ``forward`` too."""
        own = vars(model)
        given = own.get("forward")
        if getattr(given, "__func__", None) in _forwards:
            return
        function = vars(type(model)).get("forward") if given is None else getattr(given, "__func__", None)
        if given is None and function is None:
            function = getattr(type(model), "forward", None)
        if not isinstance(function, types.FunctionType) or (given is not None and given.__self__ is not model):
            warn_once("torch: forward", "forward of %s cannot be replaced: calls of it are not traced", type(model))
            return
        # A method of this object: pickled by its name, copied with the object, and found by torch.jit.script.
        own["forward"] = types.MethodType(self._wrap_forward(function), model)

    def _wrap(self, original: Any) -> Callable[..., Any]:
        is_compiling, current, callback = self._is_dynamo, inside.get, self._callback
        root = self.calls.root

        def quick(self: Any, *args: Any, **kwargs: Any) -> Any:
            if is_compiling() or current().active or callback() is not None:
                if self._compiled_call_impl is None:
                    # Torch's own entry point does no more; this line has the number of its own in tracebacks.
                    return self._call_impl(*args, **kwargs)
                return self._compiled_call_impl(*args, **kwargs)
            try:
                return root(original, self, args, kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
                raise

        def general(self: Any, *args: Any, **kwargs: Any) -> Any:
            if is_compiling() or current().active or callback() is not None:
                return original(self, *args, **kwargs)
            try:
                return root(original, self, args, kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
                raise

        code = getattr(original, "__code__", None)
        is_known = code is not None and code.co_names == _ENTRY
        self.calls.plain = original if is_known else None
        wrapper: Any = quick if is_known else general
        if code is not None:
            wrapper.__code__ = wrapper.__code__.replace(
                co_filename=code.co_filename, co_firstlineno=code.co_firstlineno, co_name=code.co_name
            )
        found: Callable[..., Any] = functools.wraps(original)(wrapper)
        return found

    def _wrap_forward(self, function: types.FunctionType) -> types.FunctionType:
        is_compiling, current, callback = self._is_dynamo, inside.get, self._callback
        root = self.calls.root

        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            if is_compiling() or current().active or callback() is not None:
                return function(self, *args, **kwargs)
            try:
                return root(function, self, args, kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
                raise

        # torch.jit.script and dynamo look at the names and the file of what they compile.
        code = forward.__code__.replace(co_filename=function.__code__.co_filename)
        wrapper = types.FunctionType(code, function.__globals__, function.__name__, None, forward.__closure__)
        functools.update_wrapper(wrapper, function)
        _forwards.add(wrapper)
        return wrapper


class _Forwards:
    """Functions that stand for a ``forward``; compared by identity."""

    def __init__(self) -> None:
        self._functions: dict[int, types.FunctionType] = {}

    def add(self, function: types.FunctionType) -> None:
        self._functions[id(function)] = function

    def __contains__(self, function: object) -> bool:
        return self._functions.get(id(function)) is function and function is not None

    def clear(self) -> None:
        self._functions.clear()


_forwards = _Forwards()
_patch: Patch | None = None


class _Part:
    """What the runtime puts on and takes off."""

    def __init__(self) -> None:
        self._running: runtime.Runtime | None = None

    def install(self, running: runtime.Runtime) -> None:
        """When torch is there."""
        self._running = running

        def patch(torch: types.ModuleType) -> None:
            global _patch  # noqa: PLW0603 - one per process is the point
            # Taken off before torch came, while another framework's hook stayed on: nothing is patched.
            if self._running is not running or runtime.current() is not running or _patch is not None:
                return
            _patch = Patch(TorchCalls(running.emitter, torch), torch)
            for model in registered_models():
                adopt(model)

        when_imported("torch", patch)

    def remove(self) -> None:
        """Put torch's own back."""
        global _patch  # noqa: PLW0603
        self._running = None
        if _patch is not None:
            _patch.restore()
            _patch = None
            deferred.drain()
            deferred.unwatch()
        for model in registered_models():
            release(model)
        _forwards.clear()


def is_module(model: object) -> bool:
    """Whether the object is a torch module, without importing torch."""
    return any(
        f"{cls.__module__}.{cls.__qualname__}" == "torch.nn.modules.module.Module" for cls in type(model).__mro__
    )


@guarded("torch: instrument_model", None)
def adopt(model: object) -> None:
    """The user has told about this model: look at it anew, and trace its ``forward``."""
    if _patch is not None and is_module(model):
        _patch.calls.forget()
        if not type(model).__module__.startswith(("torch.jit", "torch.fx", "torch._dynamo")):
            _patch.adopt(model)


def release(model: object) -> None:
    """Give the object its own ``forward`` back."""
    try:
        own = vars(model)
        if getattr(own.get("forward"), "__func__", None) in _forwards:
            del own["forward"]
    except Exception:  # noqa: BLE001 - the user's object
        failed("torch: release")


def _eval_frame_callback(torch: Any) -> Callable[[], Any]:
    try:
        found: Callable[[], Any] = torch._C._dynamo.eval_frame.get_eval_frame_callback
    except AttributeError:  # older versions
        return _no_callback
    return found


def _no_callback() -> None:
    """Where torch cannot tell."""
