"""Stage 8, OTLP spans as Zipkin's v2 spans.

Reads a request of traces; gives one JSON object per span. What Zipkin has a field for goes there; all else
becomes tags, which are strings, and annotations. Where the specification is silent (resource, links, trace
state) the result is the Collector's. Scope attributes become tags unless they are lists: every span would
repeat a model's whole schema.
Source: https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from .values import is_list, plain_map, text_map, text_of

KINDS: Final = {
    Span.SPAN_KIND_CLIENT: "CLIENT",
    Span.SPAN_KIND_SERVER: "SERVER",
    Span.SPAN_KIND_PRODUCER: "PRODUCER",
    Span.SPAN_KIND_CONSUMER: "CONSUMER",
}
CALLING_KINDS: Final = frozenset({Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_PRODUCER})
STATUS_NAMES: Final = {Status.STATUS_CODE_OK: "OK", Status.STATUS_CODE_ERROR: "ERROR"}
REMOTE_NAMES: Final = (
    ("peer.service", None),
    ("service.peer.name", None),
    ("server.address", "server.port"),
    ("net.peer.name", "net.peer.port"),
    ("network.peer.address", "network.peer.port"),
    ("server.socket.domain", None),
    ("server.socket.address", "server.socket.port"),
    ("net.sock.peer.name", None),
    ("net.sock.peer.addr", "net.sock.peer.port"),
    ("peer.hostname", None),
    ("peer.address", None),
    ("db.name", None),
)
"""Who was called: the first of these attributes that a span has, each with the attribute of its port."""
SERVICE_NAME: Final = "service.name"
MAX_PORT: Final = 65535


def zipkin_spans(request: ExportTraceServiceRequest, default_service: str) -> Iterator[dict[str, Any] | None]:
    """Yield each span for `orjson`; None for one without valid ids, for which Zipkin would refuse all."""
    for resource_spans in request.resource_spans:
        service, resource_tags = resource_of(resource_spans.resource, default_service)
        endpoint = {"serviceName": service}
        for scope_spans in resource_spans.scope_spans:
            shared = resource_tags | scope_tags(scope_spans)
            for span in scope_spans.spans:
                yield zipkin_span(span, endpoint, shared)


def zipkin_span(span: Span, endpoint: Mapping[str, str], shared: Mapping[str, str]) -> dict[str, Any] | None:
    """Return one span; `shared` are the tags of its resource and scope, over which its own win."""
    trace_id, span_id = span.trace_id, span.span_id
    if len(trace_id) != 16 or len(span_id) != 8 or not any(trace_id) or not any(span_id):
        return None
    kind = span.kind
    tags = dict(shared)
    for pair in span.attributes:
        tags[pair.key] = text_of(pair.value)
    # Zipkin shows every span with this tag as failed.
    tags.pop("error", None)
    found: dict[str, Any] = {
        "traceId": trace_id.hex(),
        "id": span_id.hex(),
        "name": span.name,
        "localEndpoint": endpoint,
    }
    if any(span.parent_span_id):
        found["parentId"] = span.parent_span_id.hex()
    if kind in KINDS:
        found["kind"] = KINDS[kind]
    start = span.start_time_unix_nano
    if start:
        found["timestamp"] = start // 1000
        if span.end_time_unix_nano >= start:
            # Zipkin reads 0 as "not known".
            found["duration"] = max(1, (span.end_time_unix_nano - start) // 1000)
    if kind in CALLING_KINDS:
        remote = remote_endpoint(tags)
        if remote is not None:
            found["remoteEndpoint"] = remote
    _add_status(span.status, tags)
    _add_rest(span, tags)
    if span.events:
        found["annotations"] = [_annotation(event) for event in span.events]
    if tags:
        found["tags"] = tags
    return found


def resource_of(resource: Resource, default_service: str) -> tuple[str, dict[str, str]]:
    """Return the service's name and the resource's other attributes as tags."""
    tags = text_map(resource.attributes)
    return tags.pop(SERVICE_NAME, "") or default_service, tags


def scope_tags(scope_spans: ScopeSpans) -> dict[str, str]:
    """Return the tags that every span of a scope gets."""
    scope = scope_spans.scope
    tags = {pair.key: text_of(pair.value) for pair in scope.attributes if not is_list(pair.value)}
    if scope.name:
        tags["otel.scope.name"] = scope.name
    if scope.version:
        tags["otel.scope.version"] = scope.version
    return tags


def remote_endpoint(tags: Mapping[str, str]) -> dict[str, str | int] | None:
    """Return whom a span called; an address is the name, too, without which Zipkin sees no dependency."""
    found = next(((tags[key], port_key) for key, port_key in REMOTE_NAMES if tags.get(key)), None)
    if found is None:
        return None
    name, port_key = found
    endpoint: dict[str, str | int] = {"serviceName": name}
    with suppress(ValueError):  # a name
        endpoint[f"ipv{ip_address(name).version}"] = name
    port = tags.get(port_key, "") if port_key is not None else ""
    if port.isascii() and port.isdigit() and 0 < int(port[:6]) <= MAX_PORT:
        endpoint["port"] = int(port)
    return endpoint


def _add_status(status: Status, tags: dict[str, str]) -> None:
    name = STATUS_NAMES.get(status.code)
    if name is not None:
        tags["otel.status_code"] = name
    if status.code == Status.STATUS_CODE_ERROR:
        tags["error"] = status.message


def _add_rest(span: Span, tags: dict[str, str]) -> None:
    """Add what Zipkin has no field for."""
    if span.kind == Span.SPAN_KIND_INTERNAL:
        tags["span.kind"] = "internal"
    if span.trace_state:
        tags["w3c.tracestate"] = span.trace_state
    for number, link in enumerate(span.links):
        attributes = orjson.dumps(plain_map(link.attributes)).decode()
        state, dropped = link.trace_state, link.dropped_attributes_count
        tags[f"otlp.link.{number}"] = f"{link.trace_id.hex()}|{link.span_id.hex()}|{state}|{attributes}|{dropped}"
    if span.dropped_attributes_count:
        tags["otel.dropped_attributes_count"] = str(span.dropped_attributes_count)
    if span.dropped_events_count:
        tags["otel.dropped_events_count"] = str(span.dropped_events_count)
    if span.dropped_links_count:
        tags["otel.dropped_links_count"] = str(span.dropped_links_count)


def _annotation(event: Span.Event) -> dict[str, Any]:
    value = event.name
    if event.attributes:
        value = f"{orjson.dumps(value).decode()}: {orjson.dumps(plain_map(event.attributes)).decode()}"
    return {"timestamp": event.time_unix_nano // 1000, "value": value}
