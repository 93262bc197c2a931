"""Builds model spans as the instrumentation sends them: for tests of processors, exporters and pipelines.

Part of the package, so that third parties can test with them too.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from mlspan import payload
from mlspan.profile import CATEGORICAL
from mlspan.semconv import attributes as names
from mlspan.semconv.events import ML_FEEDBACK
from mlspan_processor.outputs import Label
from mlspan_processor.records import Chunk, Signal

START = 1_700_000_000_000_000_000
"""When the first span ends, nanoseconds since the epoch."""
_MILLISECOND = 1_000_000


class ModelSpans:
    """Spans of one model version; every span added later ends a microsecond later.

    >>> spans = ModelSpans(columns=("age",), types=("numeric",), classes=("no", "yes"))
    >>> _ = spans.add(np.array([[41.0]], np.float32), predictions=[1])
    >>> spans.chunk().items
    1
    """

    def __init__(
        self,
        model: str = "fraud",
        version: str = "7",
        columns: Sequence[str] = ("a", "b"),
        types: Sequence[str] = ("numeric", "numeric"),
        classes: Sequence[str] = ("no", "yes"),
        task: str = "classification",
        scope_attributes: bool = True,
        scope_version: bool = True,
        seed: int = 0,
        outputs: Sequence[str] = (),
    ) -> None:
        """The model's identity and schema; `outputs` are those of a multilabel model.

        Without `scope_attributes` the scope has lost them on the way; without `scope_version` it does not know the
        version yet, as in a fit.
        """
        self.model, self.version = model, version
        self.classes = tuple(classes)
        self.bits = payload.column_bits([kind == CATEGORICAL for kind in types])
        self.next_end = START
        self._ids = np.random.default_rng(seed)
        self._columns, self._types, self._task = tuple(columns), tuple(types), task
        self._scope_attributes, self._scope_version = scope_attributes, scope_version
        self._outputs = tuple(outputs)
        self._begin()

    def add(
        self,
        cells: NDArray[Any] | None,
        predictions: Sequence[float] | NDArray[Any] | None = None,
        scores: NDArray[Any] | None = None,
        *,
        operation: str = "predict",
        score_kind: int = payload.SCORE_PROBABILITY,
        total_rows: int | None = None,
        indices: NDArray[Any] | None = None,
        ids: Sequence[str] | None = None,
        end: int | None = None,
        trace_state: str = "",
        error: str = "",
        raw: bytes | str | None = None,
        after_payload: str = "",
    ) -> Span:
        """Add one call.

        Args:
            cells: (n_rows, n_columns) float32 or uint32; None for a call that captured nothing.
            predictions: class indices when the model has classes, else numbers; (n_rows, n_outputs) of several outputs.
            scores: (n_rows, n_scores).
            operation: ml.operation.name.
            score_kind: as in a payload.
            total_rows: rows of the call; None for as many as captured.
            indices: row numbers within the call.
            ids: the user's own ids.
            end: nanoseconds since the epoch; None for the next microsecond.
            trace_state: the span's tracestate.
            error: error.type of a failed call.
            raw: what to send in ml.payload instead.
            after_payload: an attribute that some processor has added behind the payload.

        Returns:
            The span, to be changed further.
        """
        end = self.next_end if end is None else end
        self.next_end = end + 1000
        span = self.scope.spans.add(
            trace_id=self._ids.bytes(16),
            span_id=self._ids.bytes(8),
            name=f"{operation} {self.model}",
            kind=Span.SPAN_KIND_INTERNAL,
            trace_state=trace_state,
            start_time_unix_nano=end - _MILLISECOND,
            end_time_unix_nano=end,
        )
        put(span, names.ML_OPERATION_NAME, operation)
        put(span, names.ML_MODEL_NAME, self.model)
        put(span, names.ML_MODEL_VERSION, self.version)
        if error:
            put(span, names.ERROR_TYPE, error)
            span.status.code = Status.STATUS_CODE_ERROR
            return span
        rows = len(cells) if cells is not None else 1
        put(span, names.ML_INPUT_ROWS, total_rows or rows)
        if cells is not None:
            data = (
                raw
                if raw is not None
                else self.encode(cells, predictions, scores, score_kind, total_rows or rows, indices, ids)
            )
            put(span, names.ML_PAYLOAD, data)
        elif self.classes and predictions is not None and not self._outputs:
            put(span, names.ML_PREDICTION_CLASS, self.classes[int(predictions[0])])
        if after_payload:
            put(span, after_payload, "x")
        return span

    def encode(
        self,
        cells: NDArray[Any],
        predictions: Sequence[float] | NDArray[Any] | None,
        scores: NDArray[Any] | None,
        score_kind: int,
        total_rows: int,
        indices: NDArray[Any] | None = None,
        ids: Sequence[str] | None = None,
    ) -> bytes:
        """The payload of one call."""
        answers = None
        if predictions is not None:
            answers = np.asarray(predictions, "<i4" if self.classes else "<f4").reshape(len(cells), -1)
        kind = payload.PREDICTION_CLASS if self.classes else payload.PREDICTION_NUMBER
        return payload.encode(
            total_rows,
            np.ascontiguousarray(cells),
            self.bits,
            payload.PREDICTION_NONE if answers is None else kind,
            answers,
            payload.SCORE_NONE if scores is None else score_kind,
            None if scores is None else np.asarray(scores, "<f4").reshape(len(cells), -1),
            indices,
            ids,
        )

    def chunk(self) -> Chunk:
        """All spans added since the last chunk."""
        chunk = Chunk(Signal.TRACES, self.request.SerializeToString(), len(self.scope.spans))
        self._begin()
        return chunk

    def _begin(self) -> None:
        self.request = ExportTraceServiceRequest()
        resource = self.request.resource_spans.add()
        put(resource.resource, "service.name", "shop")
        self.scope = resource.scope_spans.add(schema_url=names.SCHEMA_URL)
        self.scope.scope.name = "mlspan"
        if self._scope_attributes:
            put(self.scope.scope, names.ML_MODEL_NAME, self.model)
            if self._scope_version:
                put(self.scope.scope, names.ML_MODEL_VERSION, self.version)
            put(self.scope.scope, names.ML_MODEL_TASK, self._task)
            put(self.scope.scope, names.ML_FEATURE_NAMES, self._columns)
            put(self.scope.scope, names.ML_FEATURE_TYPES, self._types)
            put(self.scope.scope, names.ML_PREDICTION_CLASSES, self.classes)
            if self._outputs:
                put(self.scope.scope, names.ML_PREDICTION_OUTPUTS, self._outputs)


def put(owner: Any, key: str, value: bytes | str | bool | float | Sequence[str] | Sequence[bool]) -> None:
    """Add an attribute of the value's type to a resource, scope, span or log record."""
    target = owner.attributes.add(key=key).value
    if isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    else:
        target.array_value.SetInParent()
        for item in value:
            one = target.array_value.values.add()
            if isinstance(item, bool):
                one.bool_value = item
            else:
                one.string_value = item


def prediction_id(span: Span, row: int = 0) -> str:
    """The default id of a span's row."""
    return f"{span.trace_id.hex()}-{span.span_id.hex()}-{row}"


def feedback_spans(labels: Sequence[tuple[str, Label]], model: str = "") -> Chunk:
    """Feedback spans, one a (prediction id, label)."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.scope.name = "mlspan"
    for identity, label in labels:
        digest = hashlib.blake2b(f"{identity}{label}".encode(), digest_size=24).digest()
        span = scope.spans.add(trace_id=digest[:16], span_id=digest[16:], name="feedback")
        span.end_time_unix_nano = START
        put(span, names.ML_OPERATION_NAME, "feedback")
        put(span, names.ML_PREDICTION_ID, identity)
        put(span, names.ML_FEEDBACK_LABEL, label)
        if model:
            put(span, names.ML_MODEL_NAME, model)
    return Chunk(Signal.TRACES, request.SerializeToString(), len(labels))


def feedback_logs(labels: Sequence[tuple[str, Label]], as_attribute: bool = False) -> Chunk:
    """Feedback log records; `as_attribute` names the event as older senders do."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for identity, label in labels:
        record = scope.log_records.add(event_name="" if as_attribute else ML_FEEDBACK)
        if as_attribute:
            put(record, "event.name", ML_FEEDBACK)
        put(record, names.ML_PREDICTION_ID, identity)
        put(record, names.ML_FEEDBACK_LABEL, label)
    return Chunk(Signal.LOGS, request.SerializeToString(), len(labels))
