"""OTLP's JSON encoding against protobuf's own writer and reader."""

import base64
import json
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from mlspan_exporters.otlp_json import to_json

from . import requests
from .golden import assert_golden

ID_KEYS = {"traceId", "spanId", "parentSpanId"}


def base64_ids(value: Any) -> Any:
    """Return JSON with hex ids in base64: OTLP's only difference from protobuf's mapping that a reader sees."""
    if isinstance(value, dict):
        return {
            key: base64.b64encode(bytes.fromhex(item)).decode() if key in ID_KEYS else base64_ids(item)
            for key, item in value.items()
        }
    return [base64_ids(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "request_", [requests.traces(), requests.metrics(), requests.logs()], ids=["traces", "metrics", "logs"]
)
def test_json_equals_protobufs_own_except_for_ids(request_: Message) -> None:
    """The JSON is protobuf's, with enumerations as integers and ids in hex, and reads back to the same message."""
    written = base64_ids(orjson.loads(to_json(request_)))
    assert written == json.loads(json_format.MessageToJson(request_, use_integers_for_enums=True))
    # As text, since a not-a-number is unequal to itself.
    assert str(json_format.Parse(orjson.dumps(written).decode(), type(request_)())) == str(request_)


@pytest.mark.parametrize("name", ["traces", "metrics", "logs"])
def test_golden(name: str) -> None:
    """One of everything is written as it always was."""
    assert_golden(f"{name}.jsonl", to_json(getattr(requests, name)()) + b"\n")


def test_ids_are_lower_case_hex_and_wide_integers_strings() -> None:
    """Ids, times and integers are written as OTLP/JSON wants them."""
    span = orjson.loads(to_json(requests.traces()))["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert span["traceId"] == "0102030405060708090a0b0c0d0e0f10"
    assert span["parentSpanId"] == "2122232425262728"
    assert span["startTimeUnixNano"] == "1790000000000000321"
    assert span["kind"] == 1
    assert span["status"] == {"code": 2, "message": "ValueError"}
    assert {"key": "bytes", "value": {"bytesValue": "AP9wYXlsb2Fk"}} in span["attributes"]
    assert {"key": "nothing", "value": {}} in span["attributes"]
    assert {"key": "not.a.number", "value": {"doubleValue": "NaN"}} in span["attributes"]


def test_empty_request_is_an_empty_object() -> None:
    """A request without anything is `{}`."""
    assert to_json(type(requests.traces())()) == b"{}"
