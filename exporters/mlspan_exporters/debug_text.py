"""Stage 8, OTLP for human eyes: the text that the debug exporter writes.

Reads requests of any signal; yields lines. `normal` is a line per item, `detailed` a line per field, both in
the words of the Collector's debug exporter. A value is cut after 256 characters, and tells how many it has.
Source: the Collector's exporter/debugexporter
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from .exemplars import exemplar_value
from .exponential import bucket_bound
from .values import text_of
from .wire import Request

MAX_VALUE_CHARACTERS: Final = 256
VALUE_WORDS: Final = {
    "string_value": "Str",
    "bool_value": "Bool",
    "int_value": "Int",
    "double_value": "Double",
    "bytes_value": "Bytes",
    "array_value": "Slice",
    "kvlist_value": "Map",
}
SPAN_KINDS: Final = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
STATUS_CODES: Final = ("Unset", "Ok", "Error")
TEMPORALITIES: Final = ("Unspecified", "Delta", "Cumulative")
DATA_WORDS: Final = {
    "gauge": ("Gauge", "NumberDataPoints"),
    "sum": ("Sum", "NumberDataPoints"),
    "histogram": ("Histogram", "HistogramDataPoints"),
    "exponential_histogram": ("ExponentialHistogram", "ExponentialHistogramDataPoints"),
    "summary": ("Summary", "SummaryDataPoints"),
}


def normal_lines(request: Request) -> Iterator[str]:
    """Yield a line per span, data point or log record."""
    for _, _, item in items_of(request):
        if isinstance(item, Span):
            yield _joined(item.name, item.trace_id.hex(), item.span_id.hex(), _short(item.attributes))
        elif isinstance(item, LogRecord):
            yield _joined(item.event_name, cut(text_of(item.body)), _short(item.attributes))
        else:
            for point in points_of(item):
                yield f"{item.name}{{{_short(point.attributes, ',')}}} {_point_value(point)}"


def detailed_lines(request: Request) -> Iterator[str]:
    """Yield a line per field of each item, as far as it is set."""
    last_resource: Resource | None = None
    last_scope: InstrumentationScope | None = None
    number = 0
    for resource, scope, item in items_of(request):
        if resource is not last_resource:
            yield "Resource"
            yield from _attributes("Resource attributes:", resource.attributes, "     ")
        if resource is not last_resource or scope is not last_scope:
            yield f"InstrumentationScope {scope.name} {scope.version}"
            yield from _attributes("InstrumentationScope attributes:", scope.attributes, "     ")
            number = 0
        last_resource, last_scope = resource, scope
        if isinstance(item, Span):
            yield f"Span #{number}"
            yield from _span_lines(item)
        elif isinstance(item, LogRecord):
            yield f"LogRecord #{number}"
            yield from _log_lines(item)
        else:
            yield f"Metric #{number}"
            yield from _metric_lines(item)
        number += 1


def items_of(request: Request) -> Iterator[tuple[Resource, InstrumentationScope, Span | LogRecord | Metric]]:
    """Yield every span, log record or metric with its resource and scope."""
    groups: Any = getattr(request, request.DESCRIPTOR.fields[0].name)
    for by_resource in groups:
        resource = by_resource.resource
        for by_scope in getattr(by_resource, by_resource.DESCRIPTOR.fields_by_number[2].name):
            scope = by_scope.scope
            for item in getattr(by_scope, by_scope.DESCRIPTOR.fields_by_number[2].name):
                yield resource, scope, item


def points_of(metric: Metric) -> Iterable[Any]:
    """Return a metric's data points of whatever type."""
    kind = metric.WhichOneof("data")
    return () if kind is None else getattr(metric, kind).data_points


def count_items(request: Request) -> int:
    """Return how many spans, data points or log records there are."""
    return sum(sum(1 for _ in points_of(item)) if isinstance(item, Metric) else 1 for _, _, item in items_of(request))


def cut(text: str) -> str:
    """Return a text of at most 256 characters on one line."""
    text = text.replace("\n", "\\n")
    if len(text) <= MAX_VALUE_CHARACTERS:
        return text
    return f"{text[:MAX_VALUE_CHARACTERS]}… ({len(text)} characters)"


def _span_lines(span: Span) -> Iterator[str]:
    yield f"    Trace ID       : {span.trace_id.hex()}"
    yield f"    Parent ID      : {span.parent_span_id.hex()}"
    yield f"    ID             : {span.span_id.hex()}"
    yield f"    Name           : {cut(span.name)}"
    yield f"    Kind           : {_word(SPAN_KINDS, span.kind)}"
    if span.trace_state:
        yield f"    TraceState     : {cut(span.trace_state)}"
    yield f"    Start time     : {time_text(span.start_time_unix_nano)}"
    yield f"    End time       : {time_text(span.end_time_unix_nano)}"
    yield f"    Status code    : {_word(STATUS_CODES, span.status.code)}"
    yield f"    Status message : {cut(span.status.message)}"
    yield from _attributes("Attributes:", span.attributes, "     ")
    for what in ("attributes", "events", "links"):
        dropped = getattr(span, f"dropped_{what}_count")
        if dropped:
            yield f"    Dropped{what.capitalize()}Count: {dropped}"
    if span.events:
        yield "Events:"
    for number, event in enumerate(span.events):
        yield f"SpanEvent #{number}"
        yield f"     -> Name: {cut(event.name)}"
        yield f"     -> Timestamp: {time_text(event.time_unix_nano)}"
        yield from _attributes("     -> Attributes:", event.attributes, "          ")
    if span.links:
        yield "Links:"
    for number, link in enumerate(span.links):
        yield f"SpanLink #{number}"
        yield f"     -> Trace ID: {link.trace_id.hex()}"
        yield f"     -> ID: {link.span_id.hex()}"
        yield f"     -> TraceState: {cut(link.trace_state)}"
        yield from _attributes("     -> Attributes:", link.attributes, "          ")


def _log_lines(record: LogRecord) -> Iterator[str]:
    yield f"ObservedTimestamp: {time_text(record.observed_time_unix_nano)}"
    yield f"Timestamp: {time_text(record.time_unix_nano)}"
    yield f"SeverityText: {cut(record.severity_text)}"
    yield f"SeverityNumber: {record.severity_number}"
    if record.event_name:
        yield f"EventName: {cut(record.event_name)}"
    yield f"Body: {_value(record.body)}"
    yield from _attributes("Attributes:", record.attributes, "     ")
    yield f"    Trace ID       : {record.trace_id.hex()}"
    yield f"    Span ID        : {record.span_id.hex()}"
    yield f"Flags: {record.flags}"


def _metric_lines(metric: Metric) -> Iterator[str]:
    kind = metric.WhichOneof("data")
    data: Any = None if kind is None else getattr(metric, kind)
    type_word, points_word = DATA_WORDS.get(kind or "", ("Empty", ""))
    yield "Descriptor:"
    yield f"     -> Name: {cut(metric.name)}"
    yield f"     -> Description: {cut(metric.description)}"
    yield f"     -> Unit: {cut(metric.unit)}"
    yield f"     -> DataType: {type_word}"
    if kind == "sum":
        yield f"     -> IsMonotonic: {str(data.is_monotonic).lower()}"
    if kind in ("sum", "histogram", "exponential_histogram"):
        yield f"     -> AggregationTemporality: {_word(TEMPORALITIES, data.aggregation_temporality)}"
    for number, point in enumerate(points_of(metric)):
        yield f"{points_word} #{number}"
        yield from _attributes("Data point attributes:", point.attributes, "     ")
        yield f"StartTimestamp: {time_text(point.start_time_unix_nano)}"
        yield f"Timestamp: {time_text(point.time_unix_nano)}"
        yield f"Value: {_point_value(point)}"
        yield from _exemplar_lines(getattr(point, "exemplars", ()))


def _exemplar_lines(exemplars: Iterable[Any]) -> Iterator[str]:
    for number, exemplar in enumerate(exemplars):
        if number == 0:
            yield "Exemplars:"
        yield f"Exemplar #{number}"
        yield f"     -> Trace ID: {exemplar.trace_id.hex()}"
        yield f"     -> Span ID: {exemplar.span_id.hex()}"
        yield f"     -> Timestamp: {time_text(exemplar.time_unix_nano)}"
        yield f"     -> Value: {exemplar_value(exemplar)}"
        yield from _attributes("     -> FilteredAttributes:", exemplar.filtered_attributes, "          ")


def _point_value(point: Any) -> str:
    """Return a data point's value: one number, or count, sum and what it is made of."""
    if hasattr(point, "as_int"):
        return str(point.as_int if point.WhichOneof("value") == "as_int" else point.as_double)
    words = [f"count={point.count}", f"sum={point.sum}"]
    if hasattr(point, "quantile_values"):
        return " ".join(words + [f"q{entry.quantile}={entry.value}" for entry in point.quantile_values])
    words += [f"{name}={getattr(point, name)}" for name in ("min", "max") if point.HasField(name)]
    if hasattr(point, "explicit_bounds"):
        bounds = [f"le{bound}=" for bound in point.explicit_bounds] + [""]
        words += [f"{bound}{count}" for bound, count in zip(bounds, point.bucket_counts, strict=False)]
        return cut(" ".join(words))
    for sign, buckets in (("-", point.negative), ("", point.positive)):
        words += [
            f"{sign}{bucket_bound(buckets.offset + position, point.scale):g}={count}"
            for position, count in enumerate(buckets.bucket_counts)
            if count
        ]
    return cut(" ".join([*words, f"zero={point.zero_count}"]))


def _attributes(title: str, attributes: Iterable[KeyValue], indent: str) -> Iterator[str]:
    for number, pair in enumerate(attributes):
        if number == 0:
            yield title
        yield f"{indent}-> {pair.key}: {_value(pair.value)}"


def _value(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    return f"{VALUE_WORDS.get(kind or '', 'Empty')}({cut(text_of(value))})"


def _short(attributes: Iterable[KeyValue], separator: str = " ") -> str:
    return separator.join(f"{pair.key}={cut(text_of(pair.value))}" for pair in attributes)


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def _word(words: tuple[str, ...], position: int) -> str:
    return words[position] if 0 <= position < len(words) else str(position)


def time_text(time_ns: int) -> str:
    """Return a time as Go prints it.

    >>> time_text(1_581_452_772_000_000_321)
    '2020-02-11 20:26:12.000000321 +0000 UTC'
    """
    seconds, rest = divmod(time_ns, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
