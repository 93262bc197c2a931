"""Stage 1, torch: what becomes of one call of a module by user code: a span, or nothing for it and all within.

Reads module and arguments, hands the call to `TorchSpans`. Guarantee: the user's result or exception passes through
untouched; a call that is no span costs a few dictionary look-ups. Of a model whose outputs are not known yet the first
span is started after the call (with its true times), since the classes belong to its scope. Memory: an entry per live
module that user code called.
"""

import types
from collections.abc import Callable
from contextvars import ContextVar
from time import time_ns
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.instrumentation.utils import suppress_instrumentation

from mlspan.call import CALL, current_context
from mlspan.captured import Input
from mlspan.config import TRAIN
from mlspan.emit import COLUMNS_CHANGED, SPAN, Emitter
from mlspan.guard import failed
from mlspan.hooks.torch_modules import Known, fingerprint, is_excluded
from mlspan.hooks.torch_spans import Operation, TorchCall, TorchSpans
from mlspan.hooks.torch_steps import TorchSteps, Within, is_compiled, parts_of
from mlspan.inputs.tensors import open_call
from mlspan.models import Entry, State, registration
from mlspan.prediction import PREDICTION
from mlspan.tensor_answers import Answers
from mlspan.tensor_capture import capture_tensors


class Passing:
    """Stands in the place of a `Call` where there is no span: modules within are not the outermost ones."""

    active = True


_NO_CALL: Final = Passing()
_NO_CALL.active = False
inside: Final[ContextVar[Any]] = ContextVar("mlspan-torch", default=_NO_CALL)
"""The outermost call that runs, a `Call` or `Passing`: what a nested module looks at first."""


def _suppressing() -> frozenset[Any]:
    """The keys that `suppress_instrumentation` sets, learnt from the function itself."""
    before = set(get_current())
    with suppress_instrumentation():
        return frozenset(get_current()) - before


_SUPPRESSED: Final = _suppressing()
_BARE: Final = Passing()
_PASS: Final = Passing()


class TorchCalls:
    """What happens to calls of modules by user code.

    Args:
        emitter: makes the spans.
        torch: the module.
    """

    def __init__(self, emitter: Emitter, torch: types.ModuleType) -> None:
        self._emitter = emitter
        self._spans = TorchSpans(emitter)
        operations = emitter.settings.operations
        self._predict = Operation("predict", "predict" in operations, True)
        self._train = Operation(TRAIN, TRAIN in operations, False)
        self._known: dict[int, Known] = {}
        # Torch's own entry point, where it is known to do no more than call `_call_impl`.
        self.plain: Callable[..., Any] | None = None
        self._is_grad_enabled: Callable[[], bool] = torch.is_grad_enabled
        self._torch = torch
        # What the settings keep from leaving with the rows does not leave with a step either.
        self._summaries = emitter.settings.capture_content and emitter.settings.capture_hook is None
        internal = torch._C
        self._tracing: Callable[[], Any] = internal._get_tracing_state
        self._modes: Callable[[], int] = getattr(internal, "_len_torch_dispatch_stack", int)
        self._is_compiling: Callable[[], bool] = torch.compiler.is_compiling
        # The tracer provider, once there is one: it is set once in a process. What its sampler always refuses: calls
        # below a span that is not sampled, calls without a parent.
        self._provider: Any = None
        self._drops_below = self._drops_roots = False
        # The last span that calls were refused below: the next one most likely has the same.
        self._refused: Any = None

    def root(self, original: Callable[..., Any], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call of a module that no other module has made, as far as this thread knows."""
        known: Known | Passing | Within | None = None
        try:
            # In line, since most calls of a process that samples end here.
            context = current_context()
            if self._provider is None:
                self._find_provider()
            span: Any = context.get(SPAN)
            if span is None:
                if self._drops_roots:
                    known = _PASS
            elif span is self._refused:
                known = _PASS
            elif self._drops_below:
                parent = span.get_span_context()
                if not parent.trace_flags & 1 and (parent.is_valid or self._drops_roots):
                    known = _PASS
                    if type(span) is trace.NonRecordingSpan:
                        self._refused = span
            if known is not None:
                if PREDICTION in context:
                    context[PREDICTION].clear()  # type: ignore[attr-defined]  # only we set this key
            else:
                if not _SUPPRESSED.isdisjoint(context):
                    for key in _SUPPRESSED:
                        if context.get(key):
                            known = _PASS
                            break
                if known is None:
                    known = self._look(module, context)
        except Exception:  # noqa: BLE001 - the user's call goes on without us
            failed("torch: call")
            known = _BARE
        try:
            if known is _PASS:
                passing = Passing()
                token = inside.set(passing)
                try:
                    if original is self.plain and module._compiled_call_impl is None:
                        return module._call_impl(*args, **kwargs)
                    return original(module, *args, **kwargs)
                finally:
                    passing.active = False
                    inside.reset(token)
            if known is _BARE:
                return original(module, *args, **kwargs)
            if isinstance(known, Within):
                return self._step(known.steps, original, module, args, kwargs)
            assert isinstance(known, Known)
            return self._trace(known, original, context, module, args, kwargs)
        except BaseException as error:
            # Our frame stands first in the traceback: the user sees his own only. A bare raise adds none.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise

    def _step(
        self,
        steps: TorchSteps,
        original: Callable[..., Any],
        module: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A submodule's call within a call whose steps are spans."""
        token = passing = None
        if is_compiled(module):
            passing = Passing()
            token = inside.set(passing)
        try:
            if self._tracing() is not None or self._modes() or self._is_compiling():
                return original(module, *args, **kwargs)
            return steps.run(original, module, args, kwargs)
        except BaseException as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        finally:
            if passing is not None and token is not None:
                passing.active = False
                inside.reset(token)

    def forget(self) -> None:
        """Look anew at every module."""
        self._known.clear()

    def _look(self, module: Any, context: Context) -> Known | Passing | Within:
        """What becomes of the call: a span, a step, or nothing for it alone, or nothing for it and all within."""
        if context:
            outer = context.get(CALL)
            if outer is not None and outer.active:  # type: ignore[attr-defined]  # only we set this key
                within = inside.get()
                return within if isinstance(within, Within) and within.steps.steps.active else _PASS
        if not self._emitter.is_enabled:
            return _BARE
        if self._tracing() is not None or self._modes() or self._is_compiling():
            return _BARE  # the program is being traced, not run; or its tensors hold no values
        key = id(module)
        known = self._known.get(key)
        if known is None or known.module() is not module:
            if "_is_replica" in module.__dict__:
                return _PASS  # DataParallel runs copies of the model in threads of its own
            known = self._known[key] = Known(module, self._remover(key), self._emitter.settings)
            if known.is_bare or (not known.is_model and is_excluded(module, self._emitter.settings)):
                known.is_bare = True
        if not known.is_model:
            return _BARE if known.is_bare else _PASS
        if self._is_training(known, module):
            return known if self._train.is_selected else _PASS
        return known if self._predict.is_selected else _PASS

    def _is_training(self, known: Known, module: Any) -> bool:
        """Whether the module, and the model it stands for, is in training mode, and gradients are on.

        In training mode the version is no longer certain: without gradients buffers change still (batch statistics).
        """
        try:
            model: Any = known.model()  # None, which has no mode, where it is gone
            if known.is_exported or not module.training or not model.training:
                return False
            if self._is_grad_enabled():
                known.is_stale, known.is_moving = True, False
                return True
            if known.has_buffers and not known.is_stale:
                known.is_stale = known.is_moving = True
        except AttributeError:  # frozen, or gone
            pass
        return False

    def _find_provider(self) -> None:
        """Learn what the sampler refuses whatever the call: then there is nothing to ask it."""
        provider = self._emitter.tracer_provider or trace.get_tracer_provider()
        if not isinstance(provider, trace.ProxyTracerProvider):  # else the program has not set its own yet
            self._drops_below, self._drops_roots = _refusals(provider)
            self._provider = provider

    def _trace(
        self,
        known: Known,
        original: Callable[..., Any],
        context: Context,
        module: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        try:
            self._emitter.look_at_exporters()
            call = self._begin(known, context, module, args, kwargs)
            within = {**context, CALL: call} if call.since else {**context, SPAN: call.span, CALL: call}
            token = attach(Context(within))
            steps = (
                None
                if call.steps is None or is_compiled(module)
                else TorchSteps(call.steps, self._torch, self._summaries)
            )
            mark = inside.set(call if steps is None else Within(steps))
        except Exception:  # noqa: BLE001 - the user's call goes on without us
            failed("torch: begin")
            call = None
        try:
            result = original(module, *args, **kwargs)
        except BaseException as error:
            if call is not None:
                end_time = time_ns()
                call.active = False
                inside.reset(mark)
                detach(token)
                if steps is not None and steps.finish():
                    self._spans.watch()
                self._spans.fail(call, context, error, end_time)
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        if call is not None:
            end_time = time_ns()
            call.active = False
            inside.reset(mark)
            detach(token)
            if steps is not None and steps.finish():
                self._spans.watch()
            self._spans.finish(call, context, result, end_time)
        return result

    def _begin(
        self, known: Known, context: Context, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> TorchCall:
        emitter = self._emitter
        models = emitter.models
        model = known.model()
        entry = models.entries.get(id(model))
        if entry is None or entry.model() is not model:
            entry = models.add(model)
            known.is_stale = True
        operation = self._predict
        if self._is_training(known, module):
            operation = self._train
            state = entry.fitting or models.fitting(entry, model)
        else:
            found = entry.fitted
            state = found if found is not None and known.is_fresh() else self._identify(entry, known, model)
        has_rows = operation.has_rows and emitter.settings.capture_content
        settings = emitter.settings if has_rows else emitter.counts_only
        X = open_call(args, kwargs, known.about)
        captured = None
        picked = None
        if (
            not entry.is_sampled
            or (has_rows and entry.schema is None)
            or trace.get_current_span(context).get_span_context().trace_flags.sampled
        ):
            captured, picked = capture_tensors(X, state, settings, emitter.budget)
            schema = captured.schema
            if has_rows:
                entry.schema = schema
        else:
            # The sampler has the first word; the tracer is the last call's, whose columns most likely were the same.
            schema = entry.schema if has_rows else None
        if has_rows and captured is not None and not state.answers.form and schema is not None:
            call = TorchCall(trace.get_current_span(context), operation, entry)
            call.captured, call.picked, call.state = captured, picked, state
            call.since = time_ns()
            return call
        call = TorchCall(self._spans.start(state, schema, operation, context, None), operation, entry)
        if not call.span.is_recording():
            entry.refused()
            return call
        if captured is None:
            captured, picked = capture_tensors(X, state, settings, emitter.budget)
            if captured.schema is not schema:
                entry.change(captured.schema)
                captured, picked = Input(captured.rows, captured.columns, error=COLUMNS_CHANGED), None
        if state.tracers.get(schema) is None:  # the overflow
            captured, picked = Input(captured.rows, captured.columns), None
        call.captured, call.picked, call.state = captured, picked, state
        if state.details or entry.steps:
            call.steps = emitter.steps(module, call, entry.steps, operation.has_rows, parts_of, by_class=False)
        return call

    def _identify(self, entry: Entry, known: Known, model: Any) -> State:
        """Who the model is now: looks at its parameters, once for as long as they do not change."""
        emitter = self._emitter
        told = registration(model)
        version = (told and told.version) or emitter.settings.model_version or fingerprint(model)
        known.note(model)
        state = entry.fitted
        if state is not None and state.version == version:
            return state
        state = entry.fitted = emitter.models.describe(model, version)
        state.answers = Answers(model, told, emitter.settings.torch_output, known.last)
        return state

    def _remover(self, key: int) -> Callable[[Any], None]:
        table = self._known

        def remove(reference: Any) -> None:
            found = table.get(key)
            if found is not None and found.module is reference:
                del table[key]

        return remove


def _refusals(provider: Any) -> tuple[bool, bool]:
    """Whether the provider's sampler refuses every call below an unsampled span, and every call without a parent."""
    sampler = getattr(provider, "sampler", None)
    if type(sampler).__name__ == "ParentBased":
        # The SDK has no public way to what it delegates to; without this one, the sampler is asked.
        below = (getattr(sampler, f"_{where}_parent_not_sampled", None) for where in ("local", "remote"))
        return all(map(_never, below)), _never(getattr(sampler, "_root", None))
    never = _never(sampler)
    return never, never


def _never(sampler: Any) -> bool:
    """Whether it is the SDK's sampler that always refuses."""
    if type(sampler).__name__ != "StaticSampler":
        return False
    decision = getattr(sampler, "_decision", None)
    return getattr(decision, "name", "") == "DROP"
