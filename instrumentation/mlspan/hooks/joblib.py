"""Stage 1, joblib: the caller's context goes with every task, to threads and to processes.

Replaces the public ``joblib.Parallel.__call__``, so that a model's own workers stay part of its call (a forest's
trees, a search's fits) and predictions made in workers stay below the caller's span. Guarantee: tasks are taken one
by one as before; outside of spans and model calls nothing is changed; other items than (function, args, kwargs) pass
untouched. Threads get the context object; pickling decides that it is a process, which gets W3C headers instead.
"""

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach, get_current, set_value
from opentelemetry.instrumentation.utils import is_instrumentation_enabled, suppress_instrumentation
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mlspan.call import CALL, Call, current_context
from mlspan.guard import failed
from mlspan.hooks.base import when_imported
from mlspan.models import register, registration

LOCAL_BACKENDS: Final = "joblib._parallel_backends"
"""Module of the backends whose workers run on this machine, with this environment: they can import mlspan."""

# The user's own propagators may be others; both ends of this way are ours.
_PROPAGATOR: Final = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])


class Carrier:
    """A task's function together with the context of the code that asked for it."""

    __slots__ = ("_context", "_function", "_is_local")

    def __init__(self, function: Callable[..., Any], context: Context, is_local: bool) -> None:
        self._function = function
        self._context = context
        self._is_local = is_local

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the task."""
        context = self._context
        token = None if current_context() is context else attach(context)
        try:
            return self._function(*args, **kwargs)
        except BaseException as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        finally:
            if token is not None:
                detach(token)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in functools.WRAPPER_ASSIGNMENTS:
            raise AttributeError(name)
        return getattr(self._function, name)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._is_local:
            return functools.partial, (self._function,)
        headers: dict[str, str] = {}
        is_inside = is_suppressed = False
        told: tuple[Any, ...] | None = None
        try:
            _PROPAGATOR.inject(headers, self._context)
            call = self._context.get(CALL)
            is_inside = isinstance(call, Call) and call.active
            is_suppressed = _is_suppressed(self._context)
            about = registration(getattr(self._function, "__self__", None))
            if about is not None:
                told = about.told()
        except Exception:  # noqa: BLE001 - the task goes on without its context
            failed("joblib: carry")
        return _arrive, (self._function, headers, is_inside, is_suppressed, told)


def install(on_arrival: Callable[[], None]) -> None:
    """Replace ``joblib.Parallel.__call__``, now or when joblib is imported.

    Args:
        on_arrival: run in a process that a task comes to, before it.
    """
    global _on_arrival, _is_installed  # noqa: PLW0603 - one per process is the point
    _on_arrival = on_arrival
    _is_installed = True
    when_imported("joblib.parallel", _patch)


def uninstall() -> None:
    """Put it back."""
    global _on_arrival, _is_installed, _patched  # noqa: PLW0603
    _is_installed = False
    _on_arrival = _nothing
    if _patched is not None:
        owner, original, replacement = _patched
        if vars(owner).get("__call__") is replacement:
            owner.__call__ = original
        _patched = None


def _nothing() -> None:
    """What happens on arrival where no instrumentation runs."""


_on_arrival: Callable[[], None] = _nothing
_is_installed = False
_patched: tuple[Any, Any, Any] | None = None


def _patch(module: types.ModuleType) -> None:
    global _patched  # noqa: PLW0603
    owner: Any = module.Parallel
    original = vars(owner)["__call__"]
    if not _is_installed or _patched is not None:
        return

    @functools.wraps(original)
    def __call__(self: Any, iterable: Iterable[Any]) -> Any:  # noqa: N807 - the name it replaces
        try:
            tasks = iterable if _is_sequential(self) else carry(iterable, get_current(), _is_local(self))
        except Exception:  # noqa: BLE001 - the user's tasks go on without their context
            failed("joblib: call")
            tasks = iterable
        try:
            return original(self, tasks)
        except BaseException as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise

    owner.__call__ = __call__
    _patched = (owner, original, __call__)


def carry(tasks: Iterable[Any], context: Context, is_local: bool) -> Iterable[Any]:
    """The same tasks, taken as lazily, with this context; the same object when there is nothing to carry."""
    if not context or not (
        context.get(CALL) is not None
        or trace.get_current_span(context).get_span_context().is_valid
        or _is_suppressed(context)
    ):
        return tasks
    return _Sized(tasks, context, is_local) if hasattr(tasks, "__len__") else _carried(tasks, context, is_local)


class _Sized:
    """Tasks whose number is known."""

    __slots__ = ("_context", "_is_local", "_tasks")

    def __init__(self, tasks: Any, context: Context, is_local: bool) -> None:
        self._tasks = tasks
        self._context = context
        self._is_local = is_local

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Any]:
        return _carried(self._tasks, self._context, self._is_local)


def _carried(tasks: Iterable[Any], context: Context, is_local: bool) -> Iterator[Any]:
    try:
        for task in tasks:
            if type(task) is tuple and len(task) == 3 and callable(task[0]):
                yield Carrier(task[0], context, is_local), task[1], task[2]
            else:
                yield task
    except BaseException as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        raise


def _is_local(parallel: object) -> bool:
    # joblib's own name for it is private; without it nothing is known of the workers, and nothing is sent to them.
    return type(getattr(parallel, "_backend", None)).__module__ == LOCAL_BACKENDS


def _is_sequential(parallel: Any) -> bool:
    """Whether all tasks run here and now, where the context holds anyway."""
    return parallel.n_jobs == 1 and _is_local(parallel) and not getattr(parallel, "return_generator", False)


def _is_suppressed(context: Context) -> bool:
    if context is get_current():
        return not is_instrumentation_enabled()
    token = attach(context)
    try:
        return not is_instrumentation_enabled()
    finally:
        detach(token)


def _arrive(
    function: Callable[..., Any],
    headers: Mapping[str, str],
    is_inside: bool,
    is_suppressed: bool,
    told: tuple[Any, ...] | None,
) -> Callable[..., Any]:
    """In the other process: the task's function, to be run in a context made from what came with it."""
    try:
        _on_arrival()
        if told is not None:
            model = getattr(function, "__self__", None)
            if model is not None:
                register(model, *told)
        context = _PROPAGATOR.extract(headers, Context())
        if is_inside:
            context = set_value(CALL, Call(trace.get_current_span(context)), context)
        if is_suppressed:
            token = attach(context)
            with suppress_instrumentation():
                context = get_current()
            detach(token)
        return Carrier(function, context, is_local=True)
    except Exception:  # noqa: BLE001 - the task goes on without its context
        failed("joblib: arrive")
        return function
