"""Stage 8: what of a refused chunk can be sent: without the items whose ids have a length that OTLP does not know.

Backends made of the Collector's parts, Jaeger among them, refuse a whole request for one such id, and with it the items
of other clients that were batched with it. To look at every id of every chunk would cost a twelfth of forwarding; so it
is done once a backend has refused. Source: opentelemetry/proto/trace/v1/trace.proto, "trace_id", "span_id"; the
Collector's pdata refuses other lengths while it parses.
"""

from typing import Any

from google.protobuf.message import DecodeError

from mlspan_processor.batching import flat_items, rebuilt
from mlspan_processor.records import Chunk, Signal
from mlspan_processor.signals import SIGNALS

_TRACE = 16
_SPAN = 8


def without_bad_ids(chunk: Chunk) -> Chunk | None:
    """The items whose ids are right, perhaps none; None where those are all, or it is not known."""
    is_right = _CHECKS.get(chunk.signal)
    if is_right is None:
        return None
    signal = SIGNALS[chunk.signal]
    try:
        request: Any = signal.request.FromString(chunk.data)
    except DecodeError:
        return None
    items = flat_items(request, signal.containers)
    right = [one for one in items if is_right(one[-1])]
    return None if len(right) == len(items) else rebuilt(chunk, right)


def _span(span: Any) -> bool:
    return (
        len(span.trace_id) == _TRACE
        and len(span.span_id) == _SPAN
        and len(span.parent_span_id) in {0, _SPAN}
        and all(len(link.trace_id) == _TRACE and len(link.span_id) == _SPAN for link in span.links)
    )


def _record(record: Any) -> bool:
    return len(record.trace_id) in {0, _TRACE} and len(record.span_id) in {0, _SPAN}


_CHECKS = {Signal.TRACES: _span, Signal.LOGS: _record}
