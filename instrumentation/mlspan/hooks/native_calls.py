"""Stages 2 to 4 for predictors that are no estimators: what becomes of one call of a booster or a session.

Reads a call, asks the library's file what it was given and what its result means, writes one span. Guarantee: the
user's result or exception passes through untouched. Where the form of the outputs is known only after the first one,
that span is started after its call, with its true times, since the classes belong to its scope.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from time import time_ns
from typing import Any, ClassVar, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import INVALID_SPAN, Span

from mlspan.call import CALL, Call
from mlspan.capture import Input, Output, capture_input
from mlspan.emit import COLUMNS_CHANGED, SPAN, Emitter
from mlspan.fingerprint import fingerprint
from mlspan.guard import failed, guarded
from mlspan.meanings import Found, Meaning
from mlspan.models import FINGERPRINT_PREFIX, Entry, Registration, State, registration
from mlspan.prediction import PREDICTION, PredictionContext
from mlspan.semconv.attributes import (
    ML_MODEL_TASK,
    ML_PREDICTION_CLASS,
    ML_PREDICTION_SCORE,
    ML_PREDICTION_VALUE,
)

OPERATION: Final = "predict"
"""What every such call is, whatever the library calls it."""
UNCOUNTED: Final = "unsupported input: rows of an IOBinding cannot be counted"


class Asked(NamedTuple):
    """What one call asks of a model.

    Attributes:
        X: the input, for `capture_input`.
        is_answer: the result is the model's answer; else (leaves, contributions, …) only rows and columns are told.
        names: of the results, where there are several.
        rows: counts the rows when the call is over, where they are not known before; 0: unknown.
    """

    X: object
    is_answer: bool = True
    names: tuple[str, ...] = ()
    rows: Callable[[], int] | None = None


class Library:
    """One library: what its own file has to say.

    Attributes:
        name: of the module that the user imports.
        dependencies: the distributions that bring it; any of them.
        predicts: methods whose calls become spans.
        changes: methods after which the model is looked at anew.
        trains: methods that call `predicts` for their own purposes; those calls become no spans.
    """

    name: ClassVar[str]
    dependencies: ClassVar[tuple[str, ...]]
    predicts: ClassVar[tuple[str, ...]]
    changes: ClassVar[tuple[str, ...]] = ()
    trains: ClassVar[tuple[str, ...]] = ()

    def owner(self, module: Any) -> type:
        """The class of the models."""
        raise NotImplementedError

    def ask(self, method: str, model: Any, given: Mapping[str, Any]) -> Asked | None:
        """What a call asks, or None when it is no prediction; `given` are its arguments by name."""
        raise NotImplementedError

    def describe(self, model: Any, told: Registration | None) -> tuple[Meaning, tuple[str, ...] | None]:
        """What the model's outputs mean, as far as it can be known now, and its own names of its columns."""
        raise NotImplementedError

    def identity(self, model: Any) -> object:
        """What tells this model from others, for `fingerprint`."""
        return model

    def find(self, asked: Asked, result: Any, captured: Input) -> Found | None:
        """The answers among the result, of the captured rows; None when there are none."""
        raise NotImplementedError


class NativeCall(Call):
    """One outermost call.

    Attributes:
        entry: of the model.
        since: when the call began, of a span that is started after it; else 0.
    """

    __slots__ = ("entry", "since")

    def __init__(self, span: Span, entry: Entry) -> None:
        super().__init__(span)
        self.entry = entry
        self.since = 0


class Predicts:
    """What the wrapper of a predicting method calls in the original's place; a `Method` for the emitter."""

    __slots__ = ("_calls", "_name", "_parameters", "has_rows", "is_fit", "is_selected", "operation", "parameter")

    def __init__(self, calls: "NativeCalls", name: str, original: Callable[..., Any]) -> None:
        self._calls = calls
        self._name = name
        self._parameters = tuple(inspect.signature(original).parameters)[1:]
        self.operation = OPERATION
        self.parameter = ""
        self.is_fit = False
        self.is_selected = OPERATION in calls.emitter.settings.operations
        self.has_rows = True

    def __call__(self, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the original, in a span if this is the outermost call of a model."""
        context = get_current()
        outer = context.get(CALL)
        try:
            if (
                (outer is None or not outer.active)  # type: ignore[attr-defined]  # only we set this key
                and args
                and self.is_selected
                and self._calls.emitter.is_enabled
                and (not context or is_instrumentation_enabled())
            ):
                return self._calls.trace(self, original, context, args, kwargs)
            return original(*args, **kwargs)
        except BaseException as error:
            # Our frame stands first in the traceback: the user sees his own only. A bare raise adds none.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (operator.call,)

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The method's name, and the arguments by their names."""
        return self._name, {**dict(zip(self._parameters, args[1:], strict=False)), **kwargs}


class Changes:
    """The same of a method that changes the model, or calls predicting ones for its own purposes."""

    __slots__ = ("_emitter", "_is_change", "_is_training")

    def __init__(self, emitter: Emitter, is_change: bool, is_training: bool) -> None:
        self._emitter = emitter
        self._is_change = is_change
        self._is_training = is_training

    def __call__(self, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the original; calls within are no spans, and the model is looked at anew."""
        token = passing = None
        if self._is_training:
            passing = Call(INVALID_SPAN)
            context = get_current()
            outer = context.get(CALL)
            if outer is None or not outer.active:  # type: ignore[attr-defined]  # only we set this key
                token = attach(Context({**context, CALL: passing}))
        try:
            return original(*args, **kwargs)
        except BaseException as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        finally:
            if passing is not None:
                passing.active = False
            if token is not None:
                detach(token)
            if self._is_change and args:
                self._emitter.models.forget(args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (operator.call,)


class NativeCalls:
    """What becomes of the calls of one library's models.

    Args:
        library: whose.
        emitter: shared with the other hooks.
    """

    def __init__(self, library: Library, emitter: Emitter) -> None:
        self.library = library
        self.emitter = emitter

    def trace(
        self,
        method: Predicts,
        original: Callable[..., Any],
        context: Context,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run the user's call within a span; its result, its exception."""
        call = None
        try:
            self.emitter.look_at_exporters()
            name, given = method.given(args, kwargs)
            asked = self.library.ask(name, args[0], given)
            if asked is not None:
                call = self._begin(context, args[0], asked)
                within = {**context, CALL: call} if call.since else {**context, SPAN: call.span, CALL: call}
                token = attach(Context(within))
        except Exception:  # noqa: BLE001 - the user's call goes on without us
            failed(f"{self.library.name}: begin")
            call = None
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            if call is not None:
                end_time = time_ns()
                call.active = False
                detach(token)
                self._fail(method, call, context, error, end_time)
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        if call is not None and asked is not None:
            end_time = time_ns()
            call.active = False
            detach(token)
            self._finish(call, asked, context, result, end_time)
        return result

    def _begin(self, context: Context, model: Any, asked: Asked) -> NativeCall:
        emitter = self.emitter
        models = emitter.models
        entry = models.entries.get(id(model))
        if entry is None or entry.model() is not model:
            entry = models.add(model)
        state = entry.fitted or self._identify(entry, model)
        has_rows = asked.is_answer and emitter.settings.capture_content
        settings = emitter.settings if has_rows else emitter.counts_only
        captured = None
        if (
            not entry.is_sampled
            or (has_rows and entry.schema is None)
            or trace.get_current_span(context).get_span_context().trace_flags.sampled
        ):
            captured = capture_input(asked.X, state.feature_names, settings, emitter.budget, state.answer_bytes)
            schema = captured.schema
            if has_rows:
                entry.schema = schema
        else:
            # The sampler has the first word; the tracer is the last call's, whose columns most likely were the same.
            schema = entry.schema if has_rows else None
        call = NativeCall(INVALID_SPAN, entry)
        call.captured, call.state = captured, state
        if captured is not None and schema is not None and state.answers.is_open:
            call.since = time_ns()
            return call
        call.span = self._start(state, schema, context, None)
        if not call.span.is_recording():
            entry.refused()
            call.captured = None
            return call
        if captured is None:
            captured = capture_input(asked.X, state.feature_names, settings, emitter.budget, state.answer_bytes)
            if captured.schema is not schema:
                # What the scope says of the columns must be true of the payload: this one call carries none.
                entry.change(captured.schema)
                captured = Input(captured.rows, captured.columns, error=COLUMNS_CHANGED)
        call.captured = self._within_bounds(state, schema, captured)
        return call

    def _start(self, state: State, schema: Any, context: Context, start_time: int | None) -> Span:
        tracer = state.tracers.get(schema) or self.emitter.models.tracer(state, schema)
        start = state.starts.get(OPERATION) or state.start(OPERATION)
        return tracer.start_span(state.titles[OPERATION], context, attributes=start, start_time=start_time)

    @staticmethod
    def _within_bounds(state: State, schema: Any, captured: Input) -> Input:
        """Without rows, where the tracer is the one for what is too much."""
        return captured if schema in state.tracers else Input(captured.rows, captured.columns)

    def _identify(self, entry: Entry, model: Any) -> State:
        """Who the model is: looks at the whole of it, once for as long as nothing changes it."""
        emitter = self.emitter
        told = registration(model)
        given = (told and told.version) or emitter.settings.model_version
        state = emitter.models.describe(model, given or _fingerprint(self.library, model))
        state.answers, own = self.library.describe(model, told)
        self._settle(state)
        if state.feature_names is None:
            state.feature_names = own
        entry.fitted = state
        return state

    def _settle(self, state: State) -> None:
        """What is known of the outputs belongs to the scope."""
        meaning: Meaning = state.answers
        if self.emitter.settings.capture_content:
            state.classes = meaning.classes
        if meaning.task is not None:
            state.scope[ML_MODEL_TASK] = meaning.task

    def _finish(self, call: NativeCall, asked: Asked, context: Context, result: Any, end_time: int) -> None:
        """The rest of the span, in one step, and its end."""
        prediction = context.get(PREDICTION) if asked.is_answer else None
        emitter, captured, state = self.emitter, call.captured, call.state
        if captured is None or state is None:
            if isinstance(prediction, PredictionContext):
                prediction.clear()
            return
        try:
            meaning: Meaning = state.answers
            found = None
            if captured.schema is not None:
                found = self.library.find(asked, result, captured)
            if call.since:
                if found is not None and meaning.decide(found):
                    # What was said of the model without it holds no longer.
                    state.tracers.clear()
                    self._settle(state)
                if not self._start_late(call, context):
                    if isinstance(prediction, PredictionContext):
                        prediction.clear()
                    return
                captured = self._within_bounds(state, captured.schema, captured)
            output = ids = data = None
            attributes: dict[str, Any] = {}
            if found is not None and prediction is None and captured.error is None:
                data = self._quick(meaning, found, captured, attributes)
            if captured.schema is not None and data is None:
                output = Output() if found is None else meaning.read(found, captured)
                if call.state is not None:
                    call.state.answer_bytes = output.row_bytes
            elif asked.rows is not None:
                captured.rows = asked.rows()
                captured.error = None if captured.rows else UNCOUNTED
            if isinstance(prediction, PredictionContext):
                ids = prediction.name_rows(captured.rows, call.span.get_span_context())
            emitter.write(call.span, attributes, captured, output, data, ids)
        except Exception:  # noqa: BLE001 - the user has his result
            failed(f"{self.library.name}: finish")
        finally:
            if not call.since:
                emitter.end(call.span, end_time)

    def _quick(self, meaning: Meaning, found: Found, captured: Input, attributes: dict[str, Any]) -> bytes | None:
        """The payload of a single row, and its answer in words; None: the general way."""
        emitter = self.emitter
        quick = meaning.row(found, captured, emitter.settings.max_bytes, emitter.budget)
        if quick is None:
            return None
        data, answer, score = quick
        attributes[ML_PREDICTION_CLASS if isinstance(answer, str) else ML_PREDICTION_VALUE] = answer
        if score is not None:
            attributes[ML_PREDICTION_SCORE] = score
        return data

    def _start_late(self, call: NativeCall, context: Context) -> bool:
        """Begin the span of a call that is over; False when nobody wants it."""
        assert call.state is not None
        assert call.captured is not None
        call.span = self._start(call.state, call.captured.schema, context, call.since)
        call.since = 0
        if not call.span.is_recording():
            call.entry.refused()
        return call.span.is_recording()

    def _fail(self, method: Predicts, call: NativeCall, context: Context, error: BaseException, end_time: int) -> None:
        """The span of a call that raised, and its end."""
        if call.captured is None:
            return
        try:
            if call.since:
                self._start_late(call, context)
        except Exception:  # noqa: BLE001 - the user gets his exception
            failed(f"{self.library.name}: fail")
            return
        self.emitter.fail(method, call, None, error, end_time)


@guarded("fingerprint", None)
def _fingerprint(library: Library, model: object) -> str | None:
    return FINGERPRINT_PREFIX + fingerprint(library.identity(model))
