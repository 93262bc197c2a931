"""Stage 4: the span around one model call.

Reads the call (model, method, arguments), writes one span: started before the user's call with what is known, given
the rest in one step after it. Guarantee: the user's result or exception passes through untouched, and the span's
times enclose the user's call alone, not our work. Memory: see `mlspan.models`; nothing outlives the call.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import time_ns
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, StatusCode, Tracer, TracerProvider

import mlspan
from mlspan.budget import LIMIT_BYTES, ByteBudget
from mlspan.call import CALL, Call, Method, OtherCall
from mlspan.capture import Input, Output, capture_input, capture_output, pack
from mlspan.config import STEPS, Settings
from mlspan.details import Details, prepare
from mlspan.encoding import Encoding
from mlspan.guard import failed, guarded
from mlspan.identity import has_members
from mlspan.models import Models, State
from mlspan.parts import parts_of
from mlspan.payload import to_text
from mlspan.prediction import PREDICTION, PredictionContext
from mlspan.reference import after_fit, after_score
from mlspan.semconv.attributes import (
    ERROR_TYPE,
    ML_CALL_P99,
    ML_CALL_SLOW,
    ML_CAPTURE_ERROR,
    ML_INPUT_COLUMNS,
    ML_INPUT_ROWS,
    ML_MODEL_VERSION,
    ML_PAYLOAD,
    ML_PREDICTION_CLASS,
    ML_PREDICTION_ID,
    ML_PREDICTION_SCORE,
    ML_PREDICTION_VALUE,
    SCHEMA_URL,
)
from mlspan.single import answer_row
from mlspan.slow import DETAILED_CALLS
from mlspan.steps import SCOPE as STEP_SCOPE
from mlspan.steps import SECOND, Parts, Steps

COLUMNS_CHANGED: Final = "columns changed while calls were sampled out"

OTHER_ANSWERS: Final = ("raw_score", "pred_leaf", "pred_contrib", "output_margin")
"""Arguments by which the wrappers of LightGBM and XGBoost are asked for something else than the model's answer."""

# The key under which a context holds its span, learnt from the public function: one copy of the context, not two.
SPAN: Final = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
# Base64 makes four bytes of three.
_LIMIT_AS_TEXT: Final = LIMIT_BYTES // 4 * 3


class Emitter:
    """Makes the spans of one instrumentation.

    Args:
        settings: the user's.
        tracer_provider: where tracers come from; None: the global one.
        accepts: whether an object is a model of ours.
    """

    def __init__(
        self,
        settings: Settings,
        tracer_provider: TracerProvider | None = None,
        accepts: Callable[[object], bool] = bool,
    ) -> None:
        self.settings = settings
        self.tracer_provider = tracer_provider
        self.models = Models(settings, tracer_provider)
        self._accepts = accepts
        self.is_enabled = True
        # Whether this process has ended a span of ours, and so may have something to flush.
        self.has_ended = False
        self.on_first_end: Callable[[], None] | None = None
        self.counts_only = replace(settings, capture_content=False)
        self.encoding = Encoding(tracer_provider)
        self._step_tracer: Tracer | None = None
        self.budget = ByteBudget(limit_bytes=_LIMIT_AS_TEXT)

    def trace(
        self,
        method: Method,
        original: Callable[..., Any],
        context: Context,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run the user's call within a span; its result, its exception."""
        try:
            self.look_at_exporters()
            call = self._begin(method, context, args, kwargs)
            if call is not None:
                call.is_quiet = call.steps is None
                token = attach(Context({**context, SPAN: call.span, CALL: call}))
        except Exception:  # noqa: BLE001 - the user's call goes on without us
            failed("emit: begin")
            call = None
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            if call is not None:
                end_time = time_ns()
                call.active = call.is_quiet = False
                detach(token)
                self.fail(method, call, args[0], error, end_time)
            # Our frame stands first in the traceback: the user sees his own only. A bare raise adds none.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        if call is not None:
            end_time = time_ns()
            call.active = call.is_quiet = False
            detach(token)
            self._finish(method, call, context, args[0], result, end_time)
            if self.settings.reference_dir is not None:
                self._refer(method, args, kwargs, result)
        return result

    def look_at_exporters(self) -> None:
        """Whether payloads go as bytes may change while the program runs; to be asked at the start of every call."""
        if self.encoding.has_changed():
            self.budget = ByteBudget(limit_bytes=LIMIT_BYTES if self.encoding.carries_bytes else _LIMIT_AS_TEXT)

    def _begin(self, method: Method, context: Context, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        model = args[0]
        models = self.models
        entry = models.entries.get(id(model))
        if entry is None or entry.model() is not model:
            if not self._accepts(model):
                return None
            entry = models.add(model)
        if not method.is_selected:
            return Call(trace.get_current_span(context))
        if method.is_fit:
            state = entry.fitting or models.fitting(entry, model)
        else:
            fitted = entry.fitted
            if fitted is None or (fitted.members and not has_members(model, fitted.members)):
                fitted = models.fitted(entry, model)
            state = fitted
        is_other = bool(kwargs) and method.has_rows and any(kwargs.get(name) is True for name in OTHER_ANSWERS)
        has_rows = method.has_rows and self.settings.capture_content and not is_other
        settings = self.settings if has_rows else self.counts_only
        X = args[1] if len(args) > 1 else kwargs.get(method.parameter)
        captured = None
        if (
            not entry.is_sampled
            or (has_rows and entry.schema is None)
            or trace.get_current_span(context).get_span_context().trace_flags.sampled
        ):
            captured = capture_input(X, state.feature_names, settings, self.budget, state.answer_bytes)
            schema = captured.schema
            if has_rows:
                entry.schema = schema
        else:
            # The sampler has the first word; the tracer is the last call's, whose columns most likely were the same.
            schema = entry.schema if has_rows else None
        operation = method.operation
        last = entry.last
        if last is None or last[0] is not state or last[1] is not schema or last[2] is not operation:
            tracer = state.tracers.get(schema) or models.tracer(state, schema)
            start = state.starts.get(operation) or state.start(operation)
            last = entry.last = state, schema, operation, tracer, state.titles[operation], start
        tracer = last[3]
        span = tracer.start_span(last[4], context, attributes=last[5])
        call = OtherCall(span) if is_other else Call(span)
        if not span.is_recording():
            entry.refused()
            return call
        if captured is None:
            captured = capture_input(X, state.feature_names, settings, self.budget, state.answer_bytes)
            if captured.schema is not schema:
                # What the scope says of the columns must be true of the payload: this one call carries none.
                entry.change(captured.schema)
                captured = Input(captured.rows, captured.columns, error=COLUMNS_CHANGED)
        if tracer is models.overflow:
            captured = Input(captured.rows, captured.columns)
        call.captured = captured
        call.state = state
        if entry.steps or state.details:
            call.steps = self.steps(model, call, entry.steps, method.has_rows, parts_of)
        if captured.schema is not None and operation == "predict":
            call.targets = state.targets
        return call

    def _finish(
        self, method: Method, call: Call, context: Context, model: object, result: object, end_time: int
    ) -> None:
        """The rest of the span, in one step, and its end."""
        if method.is_fit:
            self.models.forget(model)
        prediction = context.get(PREDICTION) if context and method.has_rows and call.is_answer else None
        captured, state, span = call.captured, call.state, call.span
        if captured is None or state is None:
            if prediction is not None:
                assert isinstance(prediction, PredictionContext)
                prediction.clear()
            return
        try:
            steps, latencies = call.steps, state.latencies
            if steps is not None:
                steps.finish(span, end_time)
            if latencies is not None and method.has_rows and (steps is None or steps.details is None):
                # In line, since nothing more is to be done for most calls of one row.
                table = latencies.single.get(method.operation) if captured.rows == 1 else None
                if table is None or not end_time & table.mask or end_time - span.start_time > table.threshold:  # type: ignore[attr-defined]
                    self.time(state, method.operation, captured.rows, span, end_time)
            if prediction is None and captured.rows == 1 and captured.error is None and call.probabilities is None:
                quick = answer_row(
                    method.operation, result, captured, state.classes, self.settings.max_bytes, self.budget
                )
                if quick is not None:
                    data, value, score = quick
                    known: dict[str, Any] = {
                        ML_INPUT_ROWS: 1,
                        ML_INPUT_COLUMNS: captured.columns,
                        ML_PREDICTION_VALUE if state.classes is None else ML_PREDICTION_CLASS: value,
                        ML_PAYLOAD: data if self.encoding.carries_bytes else to_text(data),
                    }
                    if score is not None:
                        known[ML_PREDICTION_SCORE] = score
                    span.set_attributes(known)
                    return
            attributes: dict[str, Any] = {}
            output = ids = None
            if captured.schema is not None:
                output = capture_output(method.operation, result, captured, state.classes, call.probabilities)
                state.answer_bytes = output.row_bytes
            if prediction is not None:
                assert isinstance(prediction, PredictionContext)
                ids = prediction.name_rows(captured.rows, span.get_span_context())
            if method.is_fit and state.version is None:
                fitted = self.models.fitted_now(model)
                if fitted is not None and fitted.version is not None:
                    attributes[ML_MODEL_VERSION] = fitted.version
            self.write(span, attributes, captured, output, None, ids)
        except Exception:  # noqa: BLE001 - the user has his result
            failed("emit: finish")
        finally:
            self.end(span, end_time)

    def write(
        self,
        span: Span,
        attributes: dict[str, Any],
        captured: Input,
        output: Output | None,
        data: bytes | None,
        ids: Sequence[str] | None,
    ) -> None:
        """Set all that is known after a call: these attributes, rows, answers, the payload."""
        if captured.rows or captured.error is None:
            attributes[ML_INPUT_ROWS] = captured.rows
            attributes[ML_INPUT_COLUMNS] = captured.columns
        if captured.error is not None:
            attributes[ML_CAPTURE_ERROR] = captured.error
        if output is not None:
            answer = output.value
            if answer is not None:
                is_class = isinstance(answer, str)
                attributes[ML_PREDICTION_CLASS if is_class else ML_PREDICTION_VALUE] = answer
            if output.score is not None:
                attributes[ML_PREDICTION_SCORE] = output.score
            data = pack(captured, output, self.settings, self.budget, ids)
        if ids is not None and captured.rows == 1:
            attributes[ML_PREDICTION_ID] = ids[0]
        if data is not None:
            attributes[ML_PAYLOAD] = data if self.encoding.carries_bytes else to_text(data)
        span.set_attributes(attributes)

    def fail(self, method: Method, call: Call, model: object, error: BaseException, end_time: int) -> None:
        """The span of a call that raised, and its end."""
        if method.is_fit:
            self.models.forget(model)
        captured, span = call.captured, call.span
        if captured is None:
            return
        try:
            if call.steps is not None:
                call.steps.finish(span, end_time)
            kind = type(error)
            builtin = kind.__module__ == "builtins"
            attributes: dict[str, Any] = {}
            if captured.rows:
                attributes[ML_INPUT_ROWS] = captured.rows
                attributes[ML_INPUT_COLUMNS] = captured.columns
            attributes[ERROR_TYPE] = kind.__qualname__ if builtin else f"{kind.__module__}.{kind.__qualname__}"
            span.set_attributes(attributes)
            if self.settings.record_exceptions:
                span.record_exception(error)
            # No description: messages hold data.
            span.set_status(StatusCode.ERROR)
        except Exception:  # noqa: BLE001 - the user gets his exception
            failed("emit: fail")
        finally:
            self.end(span, end_time)

    def steps(
        self, model: object, call: Call, depth: int, has_rows: bool, parts: Parts, by_class: bool = True
    ) -> Steps | None:
        """What makes child spans of a call, and of one that follows a slow one looks at more."""
        state, details = call.state, None
        if has_rows and state is not None and state.details:
            state.details -= 1
            depth = depth or STEPS
            details = Details()
        if not depth:
            return None
        if self._step_tracer is None:
            self._step_tracer = trace.get_tracer(
                STEP_SCOPE, mlspan.__version__, self.tracer_provider, schema_url=SCHEMA_URL
            )
        return Steps(self._step_tracer, model, call.span, depth, parts, by_class, details)

    def time(self, state: State, operation: str, rows: int, span: Span, end_time: int) -> None:
        """Count how long a call took, and say so on its span if that was unusually long."""
        try:
            duration = end_time - span.start_time  # type: ignore[attr-defined]  # no part of the API; the SDK has it
        except (AttributeError, TypeError):
            return
        latencies = state.latencies
        assert latencies is not None
        threshold = latencies.note(operation, rows, duration, end_time)
        if threshold:
            span.set_attributes({ML_CALL_SLOW: True, ML_CALL_P99: threshold * SECOND})
            if latencies.are_details_due():
                state.details = DETAILED_CALLS
                prepare()

    def note_end(self) -> None:
        """A span of ours has ended in this process."""
        if not self.has_ended:
            self.has_ended = True
            if self.on_first_end is not None:
                self.on_first_end()

    @guarded("emit: reference", None)
    def _refer(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> None:
        """What a finished fit or score tells goes into the model's reference profile."""
        model = args[0]
        X = args[1] if len(args) > 1 else kwargs.get(method.parameter)
        if method.operation in {"fit", "fit_predict"}:
            state = self.models.fitted_now(model)
            if state is not None:
                after_fit(model, state, X, self.settings)
        elif method.operation == "score":
            after_score(model, X, result, self.settings)

    def end(self, span: Span, end_time: int) -> None:
        """End the span; whatever a processor of the user's does then, his call goes on."""
        try:
            span.end(end_time)
            if not self.has_ended:
                self.note_end()
        except Exception:  # noqa: BLE001 - a span processor of the user's may raise
            failed("emit: end")
