"""Stage 8, attribute values: OTLP's `AnyValue` as text and as plain Python.

Text follows the specification's mapping to non-OTLP formats: strings as they are, `true`/`false`, numbers as
JSON writes them (`NaN`, `Infinity` and `-Infinity` in words), bytes in base64, lists and maps as JSON in
which numbers that JSON lacks, and bytes, are strings. No value is "" at the top and null inside.
Source: https://opentelemetry.io/docs/specs/otel/common/#anyvalue-representation-for-non-otlp-protocols
"""

from base64 import b64encode
from collections.abc import Iterable
from math import isfinite, isnan
from typing import TypeAlias

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Plain: TypeAlias = str | bool | int | float | list["Plain"] | dict[str, "Plain"] | None


def text_of(value: AnyValue) -> str:
    """Return a value as text, for tags and labels."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind == "int_value":
        return str(value.int_value)
    if kind == "double_value":
        return number_text(value.double_value)
    if kind == "bytes_value":
        return b64encode(value.bytes_value).decode()
    if kind == "array_value" or kind == "kvlist_value":
        return orjson.dumps(plain(value)).decode()
    return ""


def plain(value: AnyValue) -> Plain:
    """Return a value as what `orjson` writes."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        double = value.double_value
        return double if isfinite(double) else number_text(double)
    if kind == "bytes_value":
        return b64encode(value.bytes_value).decode()
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return plain_map(value.kvlist_value.values)
    return None


def plain_map(attributes: Iterable[KeyValue]) -> dict[str, Plain]:
    """Return attributes as a dictionary that `orjson` writes; of a repeated key the last stays."""
    return {pair.key: plain(pair.value) for pair in attributes}


def text_map(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Return attributes as texts; of a repeated key the last stays."""
    return {pair.key: text_of(pair.value) for pair in attributes}


def is_list(value: AnyValue) -> bool:
    """Tell whether the value is an array or a map: what grows with the data, unlike a name."""
    return value.WhichOneof("value") in ("array_value", "kvlist_value")


def number_text(number: float) -> str:
    """Return a number as JSON writes it, and in words what JSON lacks.

    >>> number_text(0.25), number_text(float("nan")), number_text(float("-inf"))
    ('0.25', 'NaN', '-Infinity')
    """
    if isfinite(number):
        return repr(number)
    if isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"
