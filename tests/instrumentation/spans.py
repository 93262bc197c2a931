"""What is asked of recorded spans."""

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from tests.instrumentation.conftest import Recorder


def one(recorder: Recorder) -> ReadableSpan:
    """The only span."""
    (span,) = recorder.spans()
    return span


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """Its attributes."""
    return dict(span.attributes or {})


def scope_of(span: ReadableSpan) -> dict[str, Any]:
    """Its scope's."""
    assert span.instrumentation_scope is not None
    return dict(span.instrumentation_scope.attributes or {})
