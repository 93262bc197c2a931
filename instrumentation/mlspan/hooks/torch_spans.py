"""Stages 2 to 4, torch: the span of one call: its start, what becomes of input and result, its end.

Reads a `TorchCall` and the call's result, writes attributes and payload through the `Emitter`, which the other hooks
share. Guarantee: never raises, changes or keeps the result. Of columns all is done at once; values on a device are
waited for, and summaries made, in another thread, which ends the span then with the call's own end time. Of columns it
would cost the program more, not less: two threads that wait for one interpreter. Memory: as `deferred.py` says.
"""

from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from mlspan.answers import adopt
from mlspan.call import Call
from mlspan.captured import EMPTY_SCHEMA, Input, Output
from mlspan.deferred import Job, deferred
from mlspan.emit import Emitter
from mlspan.guard import failed, warn_once
from mlspan.inputs.devices import Device, Transfer, device_of
from mlspan.inputs.torch_values import array_of, is_on_host, kind_of, pick, plain
from mlspan.models import Entry, State
from mlspan.payload import to_text
from mlspan.prediction import PREDICTION, PredictionContext
from mlspan.semconv.attributes import (
    ML_INPUT_COLUMNS,
    ML_INPUT_ROWS,
    ML_MODEL_TASK,
    ML_PAYLOAD,
    ML_PREDICTION_CLASS,
    ML_PREDICTION_ENTROPY,
    ML_PREDICTION_SCORE,
    ML_PREDICTION_VALUE,
)
from mlspan.single import answer_probabilities, answer_row
from mlspan.tensor_answers import Answers, answer_in, as_rows, row_entropy
from mlspan.tensor_capture import Picked, summarise_together


class Operation:
    """A kind of call, as `mlspan.emit.Method` describes it."""

    __slots__ = ("has_rows", "is_fit", "is_selected", "operation", "parameter")

    def __init__(self, operation: str, is_selected: bool, has_rows: bool) -> None:
        self.operation = operation
        self.parameter = ""
        self.is_selected = is_selected
        self.is_fit = False
        self.has_rows = has_rows


class TorchCall(Call):
    """One outermost call of a module.

    Attributes:
        operation: what kind of call.
        entry: of the model.
        since: when the call began, of a span that is started after it; else 0.
        picked: rows of the input that are on a device; or None.
    """

    __slots__ = ("entry", "operation", "picked", "since")

    def __init__(self, span: Span, operation: Operation, entry: Entry) -> None:
        super().__init__(span)
        self.operation = operation
        self.entry = entry
        self.since = 0
        self.picked: Picked | None = None


class TorchSpans:
    """Starts and ends the spans.

    Args:
        emitter: shared with the other hooks.
    """

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._is_watching = False

    def start(self, state: State, schema: Any, operation: Operation, context: Context, start_time: int | None) -> Span:
        """Begin a span of this model, for rows of this schema; `start_time` None: now."""
        models = self._emitter.models
        tracer = state.tracers.get(schema) or models.tracer(state, schema)
        name = operation.operation
        start = state.starts.get(name) or state.start(name)
        return tracer.start_span(state.titles[name], context, attributes=start, start_time=start_time)

    def finish(self, call: TorchCall, context: Context, result: Any, end_time: int) -> None:
        """The rest of the span, now or when the values are here."""
        prediction = context.get(PREDICTION) if call.operation.has_rows else None
        try:
            captured, state = call.captured, call.state
            if captured is None or state is None:
                if isinstance(prediction, PredictionContext):
                    prediction.clear()
                return
            steps = call.steps
            if steps is not None:
                steps.finish(call.span, end_time)
            has_details = steps is not None and steps.details is not None
            if state.latencies is not None and call.operation.has_rows and not call.since and not has_details:
                span: Any = call.span
                name, rows = call.operation.operation, captured.rows
                table = state.latencies.single.get(name) if rows == 1 else None
                if table is None or not end_time & table.mask or end_time - span.start_time > table.threshold:
                    self._emitter.time(state, name, rows, span, end_time)
            key, tensor = "", None
            if captured.schema is not None:
                key, tensor = answer_in(result, captured.rows)
            if tensor is None:
                is_matrix = True
            else:
                is_matrix = tensor.dim() <= 2
                tensor = as_rows(tensor, captured.rows)
                if captured.schema is EMPTY_SCHEMA and not captured.has_cells and not adopt(captured, len(tensor)):
                    tensor = None
            device = None if tensor is None or is_on_host(tensor) else device_of(tensor)
            if device is not None or call.picked is not None:
                self._defer(call, context, prediction, (key, tensor, is_matrix), device, end_time)
                return
            self._complete_now(call, context, prediction, (key, tensor, is_matrix), end_time)
        except Exception:  # noqa: BLE001 - the user has his result
            self._emitter.end(call.span, end_time) if not call.since else None
            failed("torch: finish")

    def _complete(
        self,
        call: TorchCall,
        context: Context,
        prediction: Any,
        answer: tuple[str, Any, bool],
        end_time: int,
        ids: Any = None,
    ) -> None:
        """All is here: decide what the outputs are, if that is open, and end the span."""
        emitter = self._emitter
        captured, state = call.captured, call.state
        assert captured is not None
        assert state is not None
        key, values, is_matrix = answer
        answers: Answers = state.answers
        if call.since:
            if not answers.form and captured.has_cells and values is not None and values.size:
                answers.decide(key, values, is_matrix)
                # What was said of the model without it holds no longer.
                state.tracers.clear()
                state.classes = answers.classes
                if answers.task is not None:
                    state.scope[ML_MODEL_TASK] = answers.task
            call.span = self.start(state, captured.schema, call.operation, context, call.since)
            call.since = 0
            if not call.span.is_recording():
                call.entry.refused()
                if isinstance(prediction, PredictionContext):
                    prediction.clear()
                return
        span = call.span
        try:
            attributes: dict[str, Any] = {}
            output = quick = None
            if isinstance(prediction, PredictionContext):
                ids = prediction.name_rows(captured.rows, span.get_span_context())
            if values is not None and captured.has_cells and answers is not None and answers.form:
                if captured.rows == 1 and ids is None and prediction is None and captured.error is None:
                    quick = self._quick(values, captured, answers, attributes)
                if quick is not None:
                    attributes[ML_INPUT_ROWS] = 1
                    attributes[ML_INPUT_COLUMNS] = captured.columns
                    attributes[ML_PAYLOAD] = quick if emitter.encoding.carries_bytes else to_text(quick)
                    span.set_attributes(attributes)
                    return
                output, spread = answers.read(values, captured)
                state.answer_bytes = output.row_bytes
                if spread is not None:
                    attributes[ML_PREDICTION_ENTROPY] = spread
            elif captured.schema is not None and captured.has_cells:
                output = Output()
            emitter.write(span, attributes, captured, output, None, ids)
        except Exception:  # noqa: BLE001 - the user has his result
            failed("torch: complete")
        finally:
            emitter.end(span, end_time)

    def _quick(self, values: Any, captured: Input, answers: Answers, attributes: dict[str, Any]) -> bytes | None:
        """The payload of a single row in one step, and its answer in words; None: the general way."""
        settings, budget = self._emitter.settings, self._emitter.budget
        if answers.form == "values" and values.size == 1:
            found = answer_row("predict", values.reshape(1), captured, None, settings.max_bytes, budget)
            if found is None:
                return None
            attributes[ML_PREDICTION_VALUE] = found[1]
            return found[0]
        if answers.classes is None or answers.form == "labels":
            return None
        try:
            row = answers.row(values.tolist()[0])
        except (ArithmeticError, ValueError):
            return None
        if row is None:
            return None
        quick = answer_probabilities(row, captured, answers.classes, settings.max_bytes, budget)
        if quick is None:
            return None
        attributes[ML_PREDICTION_CLASS] = quick[1]
        attributes[ML_PREDICTION_SCORE] = quick[2]
        attributes[ML_PREDICTION_ENTROPY] = row_entropy(row)
        return quick[0]

    def _defer(
        self,
        call: TorchCall,
        context: Context,
        prediction: Any,
        answer: tuple[str, Any, bool],
        device: Device | None,
        end_time: int,
    ) -> None:
        """Values are on a device, or are summarised: keep copies, and end the span in another thread."""
        captured, state, picked = call.captured, call.state, call.picked
        assert captured is not None
        assert state is not None
        key, tensor, is_matrix = answer
        is_here = device is None and (picked is None or picked.device is None)
        ids = None
        if isinstance(prediction, PredictionContext):
            if call.since and is_here:
                self._complete_now(call, context, prediction, answer, end_time)
                return
            if call.since:  # ids are asked for now: this one span says nothing of answers
                call.span = self.start(state, None, call.operation, context, call.since)
                call.since = 0
                captured = call.captured = Input(captured.rows, captured.columns)
                picked = call.picked = None
            ids = prediction.name_rows(captured.rows, call.span.get_span_context())
        transfers: list[tuple[Transfer, bool]] = []
        values = None
        if tensor is not None:
            rows = None if captured.indices is None else captured.indices.astype("intp")
            if device is None:
                values = _read(tensor)
                if values is not None:
                    values = values.copy() if rows is None else values[rows]
            elif device.is_readable():
                transfers.append((device.fetch([plain(pick(tensor, None, device.move, rows))]), True))
        if picked is not None and picked.device is not None:
            transfers.append((picked.device.fetch(picked.tensors), False))

        def wait() -> None:
            for transfer, _ in transfers:
                transfer.wait()

        def work(is_there: bool) -> None:
            found = values if is_there else None
            if is_there:
                for transfer, is_output in transfers:
                    if is_output:
                        found = transfer.arrays()[0]
                    elif picked is not None:
                        picked.fill(captured, transfer.arrays())
                if picked is not None and picked.device is None:
                    picked.fill(captured)
            else:
                call.captured = Input(captured.rows, captured.columns)
            self._complete(call, context, None, (key, found, is_matrix), end_time, ids)

        self.watch()
        if is_here and picked is not None:
            size = picked.size + (0 if values is None else values.nbytes)
            job = Job(work, None, picked, summarise_together, size)
        else:
            job = Job(work, wait)
        if not deferred.put(job):
            if not is_here:
                warn_once("deferred: full", "too many spans wait for a device; the values of some are left out")
            work(is_here)

    def watch(self) -> None:
        """Spans wait: flushes are to wait for them."""
        emitter = self._emitter
        if not emitter.has_ended:
            emitter.note_end()  # in this thread, which may be the main one, where signals can be watched
        if not self._is_watching:
            self._is_watching = True
            deferred.watch(emitter.tracer_provider or trace.get_tracer_provider())

    def _complete_now(
        self, call: TorchCall, context: Context, prediction: Any, answer: tuple[str, Any, bool], end_time: int
    ) -> None:
        """What `_defer` would have done later."""
        captured, picked = call.captured, call.picked
        assert captured is not None
        if picked is not None:
            picked.fill(captured)
        key, tensor, is_matrix = answer
        values = None if tensor is None else _read(tensor)
        if values is not None and captured.indices is not None:
            values = values[captured.indices]
        self._complete(call, context, prediction, (key, values, is_matrix), end_time)

    def fail(self, call: TorchCall, context: Context, error: BaseException, end_time: int) -> None:
        """The span of a call that raised, and its end."""
        try:
            if call.since and call.state is not None and call.captured is not None:
                call.span = self.start(call.state, call.captured.schema, call.operation, context, call.since)
                call.since = 0
        except Exception:  # noqa: BLE001 - the user gets his exception
            failed("torch: fail")
            return
        self._emitter.fail(call.operation, call, None, error, end_time)


def _read(tensor: Any) -> Any:
    """A tensor on the CPU as an array; None where its values cannot be read (within vmap, of a subclass)."""
    try:
        return array_of(tensor if _is_plain(tensor) else plain(tensor))
    except (RuntimeError, TypeError, NotImplementedError):
        return None


def _is_plain(tensor: Any) -> bool:
    return kind_of(tensor.dtype) in "fib" and not tensor.is_neg()
