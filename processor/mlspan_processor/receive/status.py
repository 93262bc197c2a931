"""The error body of OTLP: google.rpc.Status with BadRequest or RetryInfo, for both protocols.

Source: OTLP 1.11, "Failures"; https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto.
"""

from enum import IntEnum

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status


class Code(IntEnum):
    """google.rpc.Code, as far as it is used here."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


def status(code: Code, message: str, retry_after_seconds: float | None = None) -> Status:
    """Return the Status: INVALID_ARGUMENT carries a BadRequest, a wait carries a RetryInfo."""
    result = Status(code=code, message=message)
    if code is Code.INVALID_ARGUMENT:
        detail = Any()
        detail.Pack(BadRequest(field_violations=[BadRequest.FieldViolation(field="request", description=message)]))
        result.details.append(detail)
    if retry_after_seconds is not None:
        info = RetryInfo()
        info.retry_delay.FromNanoseconds(int(retry_after_seconds * 1e9))
        detail = Any()
        detail.Pack(info)
        result.details.append(detail)
    return result


def status_json(one: Status) -> str:
    """Return the Status as JSON."""
    return json_format.MessageToJson(one, indent=None)
