"""A plain WSGI application: one prediction within a span of its own per request."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry import trace
from opentelemetry.propagate import extract

from tests.instrumentation.apps.model import predict

_tracer = trace.get_tracer("app")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the process and the prediction."""
    context = extract({"traceparent": environ.get("HTTP_TRACEPARENT", "")})
    with _tracer.start_as_current_span("request", context=context):
        answer = predict(int(environ["PATH_INFO"].strip("/")) % 64)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {answer}".encode()]
