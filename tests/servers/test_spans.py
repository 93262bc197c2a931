"""OTLP JSON, in both of its dialects, becomes plain spans."""

import base64

import pytest

from .spans import Link, Span, from_otlp_json, hex_id, value

TRACE, SPAN = "cf7070628d5da74333b19981bf574220", "f966da1e61c29612"


def test_a_whole_span() -> None:
    """Every field of a span as Jaeger answers it arrives in the dataclass, ids in hex, numbers as numbers."""
    pair = {"key": "ml.rows", "value": {"intValue": "3"}}
    span = {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": "predict fraud-model",
        "kind": 1,
        "startTimeUnixNano": "1000",
        "endTimeUnixNano": "2500",
        "attributes": [pair],
        "links": [{"traceId": TRACE, "spanId": SPAN}],
        "status": {"code": 2, "message": "late"},
        "flags": 257,
    }
    scope_spans = {"scope": {"name": "mlspan", "version": "1", "attributes": [pair]}, "spans": [span]}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    found = list(from_otlp_json({"resourceSpans": [{"resource": resource, "scopeSpans": [scope_spans]}]}))
    assert found == [
        Span(
            trace_id=TRACE,
            span_id=SPAN,
            parent_span_id="",
            name="predict fraud-model",
            kind="INTERNAL",
            service="shop",
            scope="mlspan",
            start_ns=1000,
            end_ns=2500,
            attributes={"ml.rows": 3},
            resource={"service.name": "shop"},
            scope_attributes={"ml.rows": 3},
            scope_version="1",
            links=[Link(TRACE, SPAN)],
            status="ERROR",
            status_message="late",
            flags=257,
        )
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (TRACE.upper(), TRACE),
        (base64.b64encode(bytes.fromhex(TRACE)).decode(), TRACE),
        (base64.b64encode(bytes.fromhex(SPAN)).decode(), SPAN),
        ("0" * 16, ""),
        ("", ""),
    ],
)
def test_ids_come_out_in_hex(given: str, expected: str) -> None:
    """Hex and base64 give the same id; a missing id and one of zeros are both empty."""
    assert hex_id(given) == expected


def test_values_of_every_type() -> None:
    """Each kind of AnyValue becomes the Python value it stands for, with its type."""
    cases = {
        "boolValue": (False, False),
        "doubleValue": (0.5, 0.5),
        "bytesValue": ("AAE=", b"\x00\x01"),
        "arrayValue": ({"values": [{"intValue": "7"}]}, [7]),
        "kvlistValue": ({"values": [{"key": "a", "value": {"stringValue": "b"}}]}, {"a": "b"}),
    }
    assert {kind: value({kind: given}) for kind, (given, _) in cases.items()} == {
        kind: expected for kind, (_, expected) in cases.items()
    }
    assert value({}) is None
