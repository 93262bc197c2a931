"""Stage 1, shared by all hooks: wrapping the methods of classes, and putting them back exactly.

Reads classes, replaces what their own ``__dict__`` holds under the names of model methods. Guarantee: a plain
function is replaced by a plain function (so bound methods pickle, signatures and docstrings stay), any other
descriptor by one that asks the original first (so ``hasattr`` stays right); class methods, static methods, properties,
coroutine and generator functions are left alone; what cloudpickle takes of a wrapped class by value loads without
mlspan. Memory: two objects per wrapped method.
"""

import contextlib
import functools
import inspect
import operator
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from time import time_ns
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from mlspan.call import CALL, Call, current_context
from mlspan.config import FIT_OPERATIONS, OPERATIONS, PAYLOAD_OPERATIONS
from mlspan.emit import Emitter
from mlspan.guard import guarded, warn_once
from mlspan.semconv.attributes import ML_STEP_OUTPUT_SHAPE
from mlspan.steps import shape_of

_LEFT_ALONE: Final = (staticmethod, classmethod, property, functools.cached_property, type)
_ANSWER_LATER: Final = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
"""What asks whether a call only makes what has to be run: its span would be over before, and frameworks ask it, too."""
_SELF: Final = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)


class Traced:
    """What a wrapper calls in the original's place: decides what becomes of this call.

    Args:
        emitter: makes the span.
        operation: the method's name.
        parameter: the name of the parameter that takes the rows.
    """

    __slots__ = (
        "_emitter",
        "_has_probabilities",
        "_is_watched",
        "has_rows",
        "is_fit",
        "is_selected",
        "operation",
        "parameter",
    )

    def __init__(self, emitter: Emitter, operation: str, parameter: str) -> None:
        self._emitter = emitter
        self.operation = operation
        self.parameter = parameter
        self.is_selected = operation in emitter.settings.operations
        self.is_fit = operation in FIT_OPERATIONS
        self.has_rows = operation in PAYLOAD_OPERATIONS
        self._has_probabilities = operation == "predict_proba"
        self._is_watched = self.is_fit or self._has_probabilities

    def __call__(self, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the original, in a span if this is the outermost call of a model."""
        context = current_context()
        outer: Any = context.get(CALL)
        try:
            if outer is None or not outer.active:
                emitter = self._emitter
                if args and emitter.is_enabled and (not context or is_instrumentation_enabled()):
                    return emitter.trace(self, original, context, args, kwargs)
            elif outer.steps is not None and args:
                return self._step(original, outer, args, kwargs)
            if self._is_watched and args and (self.is_fit or (outer and id(args[0]) in outer.targets)):
                return self._watch(original, outer, args, kwargs)
            return original(*args, **kwargs)
        except BaseException as error:
            # Our frame stands first in the traceback: the user sees his own only. A bare raise adds none.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        # cloudpickle takes classes of __main__ by value, wrappers included, and whoever loads them may have no mlspan.
        return functools.partial, (operator.call,)

    def _step(self, original: Callable[..., Any], outer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call within a model's, which is a span of its own if it is one of a part."""
        steps = outer.steps
        X = args[1] if len(args) > 1 else kwargs.get(self.parameter)
        step = steps.begin(self.operation, args[0], shape_of(X))
        try:
            result = self._watch(original, outer, args, kwargs) if self._is_watched else original(*args, **kwargs)
        except BaseException as error:
            if step is not None:
                steps.fail(step, error)
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        if step is not None:
            end_time = time_ns()
            shape = None if result is args[0] else shape_of(result)
            steps.end(step, {} if shape is None else {ML_STEP_OUTPUT_SHAPE: shape}, end_time)
        return result

    def _watch(self, original: Callable[..., Any], outer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that is no span of its own, but changes a model or tells an outer call's probabilities."""
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        finally:
            if self.is_fit:
                self._emitter.models.forget(args[0])
        if self._has_probabilities and isinstance(outer, Call) and id(args[0]) in outer.targets:
            outer.probabilities = result
        return result


class Delegate:
    """In the place of a descriptor that is no plain function (``available_if``): asks it, then wraps its answer."""

    def __init__(self, original: Any, traced: Traced) -> None:
        self._original = original
        self._traced = traced
        self._wrapped: tuple[object, Any] = (None, None)
        self.__doc__ = original.__doc__

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        found = self._original.__get__(instance, owner)
        if isinstance(found, types.MethodType):
            function = found.__func__
            if self._wrapped[0] is not function:
                self._wrapped = (function, wrap_function(function, self._traced))
            return types.MethodType(self._wrapped[1], found.__self__)
        if not callable(found):
            return found
        if instance is None:
            return wrap_function(found, self._traced)
        unbound: Any = wrap_function(functools.partial(_without_self, found), self._traced, found)
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            # It is bound once more, which takes a parameter away.
            signature = unbound.__signature__
            unbound.__signature__ = signature.replace(parameters=[_SELF, *signature.parameters.values()])
        return unbound.__get__(instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_original"], name)

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.getitem, ((self._original,), 0)


def wrap_function(function: Callable[..., Any], traced: Traced, like: Any = None) -> Callable[..., Any]:
    """A plain function that stands for this one, and looks like it (or like the other one given)."""
    make = _method_of_a_library if _is_a_librarys(function) and not traced.is_fit else _method
    method = functools.wraps(function if like is None else like)(make(function, traced))
    with contextlib.suppress(TypeError, ValueError):
        # For callers that do not follow __wrapped__ (inspect.getfullargspec).
        vars(method)["__signature__"] = inspect.signature(function if like is None else like)
    return method


def _method(function: Callable[..., Any], traced: Traced) -> Callable[..., Any]:
    # Nothing global and no state of ours may be named in it, so that it can be pickled by value.
    def method(*args: Any, **kwargs: Any) -> Any:
        try:
            return traced(function, *args, **kwargs)
        except BaseException as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise

    return method


def _method_of_a_library(function: Callable[..., Any], traced: Traced) -> Callable[..., Any]:
    """The same in half the time for calls within a model's own, of which a forest makes one for each tree."""

    def method(*args: Any, **kwargs: Any) -> Any:
        try:
            outer: Any = current_context().get(CALL)
            if outer is not None and outer.is_quiet and args and id(args[0]) not in outer.targets:
                return function(*args, **kwargs)
            return traced(function, *args, **kwargs)
        except BaseException as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise

    return method


def _is_a_librarys(function: Callable[..., Any]) -> bool:
    """Whether it is pickled by name, never by value as what a program or a notebook defines."""
    return str(getattr(function, "__module__", "")).startswith("sklearn.")


def original_of(value: object) -> Any:
    """What stood in a class before this value was put there by us; None when it was not."""
    if isinstance(value, Delegate):
        return value.__dict__["_original"]
    if isinstance(value, types.FunctionType) and value.__code__ in _WRAPPER_CODES:
        return dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))["function"].cell_contents
    return None


class Wrapping:
    """The classes whose methods one instrumentation has wrapped.

    Args:
        emitter: makes the spans.
    """

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self._classes: weakref.WeakSet[type] = weakref.WeakSet()
        self._names = sorted(emitter.settings.operations | FIT_OPERATIONS)

    def adopt(self, cls: type) -> None:
        """Wrap the model methods of this class and of the classes it is made from."""
        for part in cls.__mro__[:-1]:
            own = vars(part)
            for name in self._names:
                if name in own:
                    if original_of(own[name]) is None:
                        self._wrap(part, name, own[name])
                    else:
                        self._classes.add(part)

    def has_wrapped(self, cls: type) -> bool:
        """Whether calls of its instances pass through us."""
        return any(part in self._classes for part in cls.__mro__)

    def restore(self) -> None:
        """Put every attribute back."""
        for cls in list(self._classes):
            restore(cls, OPERATIONS)
        self._classes.clear()

    def _wrap(self, cls: type, name: str, value: Any) -> None:
        if isinstance(value, _LEFT_ALONE) or not hasattr(type(value), "__get__"):
            return
        if any(ask(value) for ask in _ANSWER_LATER):
            warn_once(
                f"hooks: {cls.__qualname__}.{name}",
                "%s.%s answers when it is awaited or iterated over; such methods are not traced",
                *(cls.__qualname__, name),
            )
            return
        traced = Traced(self.emitter, name, _rows_parameter(value))
        is_function = isinstance(value, types.FunctionType)
        try:
            setattr(cls, name, wrap_function(value, traced) if is_function else Delegate(value, traced))
        except (AttributeError, TypeError):
            return  # a built-in class, or a metaclass that forbids it
        self._classes.add(cls)


def when_imported(name: str, action: Callable[[types.ModuleType], None]) -> None:
    """Run the action on this module: now, if it is loaded, and whenever it is loaded later. Never raises."""
    run = guarded(f"hooks: {name}", None)(action)
    if name in _awaited:
        _awaited[name] = run
        module = sys.modules.get(name)
        if module is not None:
            run(module)
        return
    _awaited[name] = run
    # wrapt cannot forget a hook again: one per module and process, which asks for the action of the day.
    wrapt.register_post_import_hook(_awaited[name], name)


_awaited: dict[str, Callable[[types.ModuleType], None]] = {}


def restore(cls: type, names: Iterable[str]) -> None:
    """Put back what stood under these names in this class, where we replaced it."""
    own = vars(cls)
    for name in names:
        original = original_of(own.get(name))
        if original is not None:
            setattr(cls, name, original)


def _rows_parameter(value: Any) -> str:
    """The name of the first parameter after self; X where it cannot be known."""
    code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
    if isinstance(code, types.CodeType) and code.co_argcount > 1:
        return code.co_varnames[1]
    return "X"


def _without_self(function: Callable[..., Any], _: object, /, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


_WRAPPER_CODES: Final = tuple(
    make(_without_self, Traced.__new__(Traced)).__code__ for make in (_method, _method_of_a_library)
)
