"""Stage 2, part 2: requests to columns of calls; payloads that look alike gathered, so that they are read as
one array.

In: parsed lean requests. Out: a Calls, one entry a model span, and the feedback spans. Python work is per
    span, never per
value: three attributes are looked at where the instrumentation puts them (operation first, payload last, the
    user's id before it), all of them only when something else has touched the span. Nothing is kept between
    calls but small bounded caches of byte strings. Sampling weights:
    https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
"""

import re
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from mlspan.payload import HEADER
from mlspan.semconv import attributes as names
from mlspan_processor.lean import VALUE_FIRST, Request, Span, key_first, key_prefix
from mlspan_processor.scopes import Schema, Schemas, text_of

if TYPE_CHECKING:
    from mlspan_processor.outputs import Label

PAYLOAD: Final = key_prefix(names.ML_PAYLOAD)
_OPERATION: Final = key_prefix(names.ML_OPERATION_NAME)
_ID: Final = key_prefix(names.ML_PREDICTION_ID)
_CLASS: Final = key_prefix(names.ML_PREDICTION_CLASS)
_ROWS: Final = key_prefix(names.ML_INPUT_ROWS)
_ERROR: Final = key_prefix(names.ERROR_TYPE)
_LABEL: Final = key_prefix(names.ML_FEEDBACK_LABEL)
_MODEL: Final = key_prefix(names.ML_MODEL_NAME)
_VERSION: Final = key_prefix(names.ML_MODEL_VERSION)
_THRESHOLD: Final = re.compile(rb"(?:^|,)\s*ot=(?:[^,]*;)?th:([0-9a-f]{1,14})(?:[;,\s]|$)")
_MAX_CACHED: Final = 1024
OTHER_ERROR: Final = "_OTHER"

CallKind = tuple[Schema, str, str]
"""What a call's duration is counted by: schema, operation, error type ("" for none)."""


class PayloadGroup:
    """Payloads of one schema with equal length and equal header.

    Attributes:
        schema: whose columns they have.
        at: where the payload begins in each value.
        values: raw bytes, all of one length.
        calls: the call each belongs to.
    """

    __slots__ = ("at", "calls", "schema", "values")

    def __init__(self, schema: Schema, at: int) -> None:
        self.schema = schema
        self.at = at
        self.values: list[bytes] = []
        self.calls: list[int] = []


class Feedback:
    """One label as it came: the id it names, the label, the model's name if given."""

    __slots__ = ("label", "model_name", "prediction_id")

    def __init__(self, prediction_id: str, label: "Label", model_name: str) -> None:
        self.prediction_id = prediction_id
        self.label = label
        self.model_name = model_name


class Calls:
    """Model spans of several requests as columns.

    Attributes:
        spans: the spans, to be enriched in place.
        kinds, kind_of: distinct CallKinds, and each call's index into them.
        starts, ends: nanoseconds since the epoch.
        trace_ids, span_ids: raw ids.
        weights: adjusted counts; calls that are not in it have an unknown weight.
        groups: payloads by likeness.
        positions: where the payload attribute is, for calls where it is not last.
        ids: the id attribute of calls that something else has touched; others have theirs in the payload.
        bare: calls without a payload, with (rows, predicted class) from the readable attributes.
        resources: raw resources, each with the number of calls before it.
        feedback: labels carried by spans.
        unreadable_feedback: feedback spans without an id or a label.
    """

    __slots__ = (
        "_kind_index", "bare", "ends", "feedback", "groups", "ids", "kind_of", "kinds", "positions",
        "resources", "span_ids", "spans", "starts", "trace_ids", "unreadable_feedback", "weights",
    )  # fmt: skip

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.kinds: list[CallKind] = []
        self._kind_index: dict[CallKind, int] = {}
        self.kind_of: list[int] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.trace_ids: list[bytes] = []
        self.span_ids: list[bytes] = []
        self.weights: dict[int, float] = {}
        self.groups: dict[tuple[Schema, int, bytes], PayloadGroup] = {}
        self.positions: dict[int, int] = {}
        self.ids: dict[int, str] = {}
        self.bare: dict[int, tuple[int, str]] = {}
        self.resources: list[tuple[int, bytes]] = []
        self.feedback: list[Feedback] = []
        self.unreadable_feedback = 0

    def __len__(self) -> int:
        return len(self.spans)

    def kind_index(self, kind: CallKind) -> int:
        """The index of a kind, new or known."""
        index = self._kind_index.get(kind)
        if index is None:
            index = self._kind_index[kind] = len(self.kinds)
            self.kinds.append(kind)
        return index


class Decoder:
    """Walks requests; holds only bounded caches."""

    def __init__(self) -> None:
        self._schemas = Schemas()
        self._texts: dict[bytes, str] = {}
        self._weights: dict[bytes, float | None] = {}
        self._made: dict[tuple[Schema | None, str, str], Schema] = {}
        self._offsets: dict[int, int] = {}

    def collect(self, request: Request, calls: Calls, has_feedback: bool) -> None:
        """Append the request's model and feedback spans.

        Args:
            request: a parsed request; its spans are referred to, not copied.
            calls: what to append to.
            has_feedback: whether the request's bytes mention a feedback label at all.
        """
        for resource_spans in request.resource_spans:
            calls.resources.append((len(calls.spans), resource_spans.resource))
            for scope_spans in resource_spans.scope_spans:
                schema = self._schemas.get(scope_spans.scope)
                if schema.model is not None and schema.model[1]:
                    self._model_spans(schema, scope_spans.spans, calls)
                elif schema.model is not None:
                    for span in scope_spans.spans:
                        self._model_spans(self._versioned(schema, span), (span,), calls)
                else:
                    self._other_spans(scope_spans.scope, scope_spans.spans, calls, has_feedback)

    def _model_spans(self, schema: Schema, spans: Iterable[Span], calls: Calls) -> None:
        texts, offsets, groups = self._texts, self._offsets, calls.groups
        kind_index, add_kind = calls.kind_index, calls.kind_of.append
        add_span, add_start, add_end = calls.spans.append, calls.starts.append, calls.ends.append
        add_trace, add_id = calls.trace_ids.append, calls.span_ids.append
        index = len(calls.spans)
        known_operation: str | None = None
        known_kind = -1
        # Payloads mostly look like the one before: then its group need not be found again.
        length, head = -1, b""
        add_value: Callable[[bytes], None]
        add_call: Callable[[int], None]
        for span in spans:
            attributes = span.attributes
            last = attributes[-1] if len(attributes) > 1 else b""
            if last.startswith(VALUE_FIRST):
                last = attributes[-1] = key_first(last)
            operation = texts.get(attributes[0]) if last.startswith(PAYLOAD) else None
            if operation is not None:
                if len(last) != length or not last.startswith(head):
                    length = len(last)
                    at = offsets.get(length) or self._offset(length)
                    head = last[: at + HEADER.size]
                    key = (schema, length, head)
                    group = groups.get(key)
                    if group is None:
                        group = groups[key] = PayloadGroup(schema, at)
                    add_value, add_call = group.values.append, group.calls.append
                add_value(last)
                add_call(index)
            else:
                operation = self._look_at_all(schema, attributes, index, calls)
            if span.status and (error := _error_of(span)):
                add_kind(kind_index((schema, operation, error)))
            else:
                if operation != known_operation:
                    known_operation, known_kind = operation, kind_index((schema, operation, ""))
                add_kind(known_kind)
            if span.trace_state and (weight := self._weight(span.trace_state)) is not None:
                calls.weights[index] = weight
            add_span(span)
            add_start(span.start)
            add_end(span.end)
            add_trace(span.trace_id)
            add_id(span.span_id)
            index += 1

    def _look_at_all(self, schema: Schema, attributes: MutableSequence[bytes], index: int, calls: Calls) -> str:
        """The operation's name; payload, id, rows and class go to `calls`, wherever they stand."""
        operation, rows, predicted = "", 0, ""
        payload = None
        for position, written in enumerate(attributes):
            raw = key_first(written)
            if raw is not written:
                attributes[position] = raw
            if raw.startswith(_OPERATION):
                operation = _text(raw)
                if len(self._texts) < _MAX_CACHED:
                    self._texts[written] = operation
            elif raw.startswith(PAYLOAD):
                payload = raw
                if position != len(attributes) - 1:
                    calls.positions[index] = position
            elif raw.startswith(_ID):
                calls.ids[index] = _text(raw)
            elif raw.startswith(_CLASS):
                predicted = _text(raw)
            elif raw.startswith(_ROWS):
                rows = _row_count(_text(raw))
        if payload is None:
            calls.bare[index] = (rows, predicted)
            return operation
        at = self._offset(len(payload))
        key = (schema, len(payload), payload[: at + HEADER.size])
        group = calls.groups.setdefault(key, PayloadGroup(schema, at))
        group.values.append(payload)
        group.calls.append(index)
        return operation

    def _other_spans(self, scope: bytes, spans: Iterable[Span], calls: Calls, has_feedback: bool) -> None:
        """Feedback spans, and model spans whose scope has lost its attributes on the way."""
        ours = not scope or b"mlspan" in scope
        if not (ours or has_feedback):
            return
        for span in spans:
            attributes = list(map(key_first, span.attributes))
            if has_feedback and any(raw.startswith(_LABEL) for raw in attributes):
                feedback = feedback_of(attributes)
                if feedback is None:
                    calls.unreadable_feedback += 1
                else:
                    calls.feedback.append(feedback)
            elif ours and any(raw.startswith(PAYLOAD) for raw in attributes):
                self._model_spans(self._orphan(attributes), (span,), calls)

    def _orphan(self, attributes: Iterable[bytes]) -> Schema:
        """The schema of a span whose scope says nothing: model and version only."""
        name = version = ""
        for raw in attributes:
            if raw.startswith(_MODEL):
                name = _text(raw)
            elif raw.startswith(_VERSION):
                version = _text(raw)
        return self._remembered((None, name, version), Schema((name, version)))

    def _versioned(self, schema: Schema, span: Span) -> Schema:
        """The schema of a span whose version was not known when its scope was made, as in a fit."""
        assert schema.model is not None
        version = next((_text(raw) for raw in map(key_first, span.attributes) if raw.startswith(_VERSION)), "")
        made = Schema(
            (schema.model[0], version), schema.task, schema.classes, schema.names, schema.types, schema.outputs
        )
        return self._remembered((schema, schema.model[0], version), made)

    def _remembered(self, key: tuple[Schema | None, str, str], made: Schema) -> Schema:
        known = self._made.get(key)
        if known is None:
            if len(self._made) >= _MAX_CACHED:
                self._made.clear()
            known = self._made[key] = made
        return known

    def _offset(self, length: int) -> int:
        """Where the payload begins in a KeyValue of this length, if its lengths are written minimally."""
        if len(self._offsets) > _MAX_CACHED:
            self._offsets.clear()
        rest = length - len(PAYLOAD)
        outer = next(n for n in range(1, 6) if rest - n < 1 << 7 * n)  # bytes of the value's length
        rest -= outer + 1
        inner = next(n for n in range(1, 6) if rest - n < 1 << 7 * n)  # bytes of the payload's length
        at = self._offsets[length] = len(PAYLOAD) + outer + 1 + inner
        return at

    def _weight(self, trace_state: bytes) -> float | None:
        try:
            return self._weights[trace_state]
        except KeyError:
            if len(self._weights) >= _MAX_CACHED:
                self._weights.clear()
            weight = self._weights[trace_state] = adjusted_count(trace_state)
            return weight


def adjusted_count(trace_state: bytes) -> float | None:
    """How many spans a sampled one stands for, from ``ot=th:``; None where the tracestate does not say.

    >>> adjusted_count(b"vendor=1,ot=th:8")
    2.0
    """
    match = _THRESHOLD.search(trace_state)
    if match is None:
        return None
    threshold = int(match[1].ljust(14, b"0"), 16)
    return 2.0**56 / (2**56 - threshold)


def feedback_of(attributes: Iterable[bytes]) -> Feedback | None:
    """A label from the raw attributes of a span; None without an id or a readable label."""
    prediction_id = model_name = ""
    label: Label = ""
    for raw in attributes:
        if raw.startswith(_ID):
            prediction_id = _text(raw)
        elif raw.startswith(_MODEL):
            model_name = _text(raw)
        elif raw.startswith(_LABEL):
            try:
                label = label_of(KeyValue.FromString(raw).value)
            except DecodeError:
                return None
    if not prediction_id or label == "":
        return None
    return Feedback(prediction_id, label, model_name)


def label_of(value: AnyValue) -> "Label":
    """A label's value: a number for a double, names or truths of outputs for an array, else text; "" when it is none of
    these."""
    if value.WhichOneof("value") == "array_value":
        return _several(value.array_value.values)
    return value.double_value if value.WhichOneof("value") == "double_value" else text_of(value)


def _several(values: Sequence[AnyValue]) -> "Label":
    kinds = {one.WhichOneof("value") for one in values}
    if kinds <= {"string_value"}:
        return tuple(one.string_value for one in values)
    numbers = [getattr(one, one.WhichOneof("value") or "string_value") for one in values]
    if kinds <= {"bool_value", "int_value", "double_value"} and all(number in {0, 1} for number in numbers):
        return tuple(map(bool, numbers))
    return ""


def _text(raw: bytes) -> str:
    try:
        return text_of(KeyValue.FromString(raw).value)
    except DecodeError:
        return ""


def _row_count(text: str) -> int:
    """Rows of a call; 0 for what is no count that a payload could hold."""
    try:
        count = float(text)
    except ValueError:
        return 0
    return int(count) if 0 < count < 1 << 32 else 0


def _error_of(span: Span) -> str:
    """error.type of a failed span; "" for one that did not fail."""
    for raw in reversed(span.attributes):
        if raw.startswith(_ERROR):
            return _text(raw)
    try:
        return OTHER_ERROR if Status.FromString(span.status).code == Status.STATUS_CODE_ERROR else ""
    except DecodeError:
        return ""
