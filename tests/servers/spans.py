"""A span as tests want to read it, and how the OTLP JSON that Jaeger answers becomes one."""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Value = str | bool | int | float | bytes | list[Any] | dict[str, Any] | None
HEX_ID = re.compile(r"(?:[0-9a-f]{16}){1,2}", re.IGNORECASE)


@dataclass(frozen=True)
class Link:
    """A link to another span; ids in lower-case hex."""

    trace_id: str
    span_id: str
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """An event on a span."""

    name: str
    time_ns: int
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """One span. Ids in lower-case hex ("" where there is no parent), times in nanoseconds since 1970.

    `kind` is INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER or UNSPECIFIED; `status` is UNSET, OK or ERROR.
    """

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: str
    service: str
    scope: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Value] = field(default_factory=dict)
    resource: dict[str, Value] = field(default_factory=dict)
    scope_attributes: dict[str, Value] = field(default_factory=dict)
    scope_version: str = ""
    links: list[Link] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    status: str = "UNSET"
    status_message: str = ""
    trace_state: str = ""
    flags: int = 0


def from_otlp_json(document: Mapping[str, Any]) -> Iterator[Span]:
    """Yield the spans of an OTLP `TracesData`, in OTLP's JSON or in protobuf's (base64 ids)."""
    for resource_spans in document.get("resourceSpans", []):
        resource = attributes(resource_spans.get("resource", {}))
        for scope_spans in resource_spans.get("scopeSpans", []):
            scope = scope_spans.get("scope", {})
            for span in scope_spans.get("spans", []):
                yield _span(span, resource, scope)


def attributes(holder: Mapping[str, Any]) -> dict[str, Value]:
    """Return the attributes of a JSON object that has some, as Python values."""
    return {pair["key"]: value(pair.get("value", {})) for pair in holder.get("attributes", [])}


def value(any_value: Mapping[str, Any]) -> Value:
    """Return an OTLP `AnyValue` in JSON as a Python value; integers come as text, bytes as base64."""
    for kind, content in any_value.items():
        match kind:
            case "intValue":
                return int(content)
            case "doubleValue":
                return float(content)
            case "bytesValue":
                return base64.b64decode(content)
            case "arrayValue":
                return [value(item) for item in content.get("values", [])]
            case "kvlistValue":
                return {pair["key"]: value(pair.get("value", {})) for pair in content.get("values", [])}
            case "stringValue":
                return str(content)
            case "boolValue":
                return bool(content)
    return None


def hex_id(text: str) -> str:
    """Return an id in lower-case hex, given hex or base64; "" stays, and so does an id of zeros become ""."""
    found = text.lower() if HEX_ID.fullmatch(text) else base64.b64decode(text).hex()
    return found if found.strip("0") else ""


def _span(span: Mapping[str, Any], resource: dict[str, Value], scope: Mapping[str, Any]) -> Span:
    status = span.get("status", {})
    return Span(
        trace_id=hex_id(span["traceId"]),
        span_id=hex_id(span["spanId"]),
        parent_span_id=hex_id(span.get("parentSpanId", "")),
        name=span.get("name", ""),
        kind=_enum(span.get("kind", 0), "SPAN_KIND_", KINDS),
        service=str(resource.get("service.name", "")),
        scope=scope.get("name", ""),
        start_ns=int(span.get("startTimeUnixNano", 0)),
        end_ns=int(span.get("endTimeUnixNano", 0)),
        attributes=attributes(span),
        resource=resource,
        scope_attributes=attributes(scope),
        scope_version=scope.get("version", ""),
        links=[
            Link(hex_id(link["traceId"]), hex_id(link["spanId"]), attributes(link)) for link in span.get("links", [])
        ],
        events=[
            Event(event.get("name", ""), int(event.get("timeUnixNano", 0)), attributes(event))
            for event in span.get("events", [])
        ],
        status=_enum(status.get("code", 0), "STATUS_CODE_", STATUSES),
        status_message=status.get("message", ""),
        trace_state=span.get("traceState", ""),
        flags=int(span.get("flags", 0)),
    )


KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES = ("UNSET", "OK", "ERROR")


def _enum(given: str | int, prefix: str, names: tuple[str, ...]) -> str:
    return given.removeprefix(prefix) if isinstance(given, str) else names[given]
