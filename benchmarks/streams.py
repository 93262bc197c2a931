"""The OTLP requests that the benchmarks send: service spans as web frameworks make them, and model spans."""

from typing import Final

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from mlspan import payload
from mlspan.semconv import attributes as names

START_NS: Final = 1_750_000_000_000_000_000
CLASSES: Final = ("in time", "late")


def _value(value: str | float | bytes | tuple[str, ...]) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case tuple():
            return AnyValue(array_value=ArrayValue(values=[_value(text) for text in value]))


def _pairs(**values: str | float | bytes | tuple[str, ...]) -> list[KeyValue]:
    return [KeyValue(key=key.replace("__", "."), value=_value(value)) for key, value in values.items()]


def _request(scope_name: str) -> tuple[ExportTraceServiceRequest, ScopeSpans]:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.extend(
        _pairs(
            service__name="checkout",
            service__instance__id="3f1c",
            host__name="node-7",
            telemetry__sdk__language="python",
        )
    )
    spans = resource.scope_spans.add()
    spans.scope.name = scope_name
    spans.scope.version = "0.1.0"
    return request, spans


def service_request(rng: np.random.Generator, n_spans: int) -> bytes:
    """One request of `n_spans` SERVER spans with twelve attributes each."""
    request, spans = _request("opentelemetry.instrumentation.fastapi")
    ids = rng.bytes(32 * n_spans)
    for i in range(n_spans):
        at = ids[32 * i : 32 * i + 32]
        spans.spans.append(
            Span(
                trace_id=at[:16],
                span_id=at[16:24],
                parent_span_id=at[24:],
                name="GET /orders/{id}",
                kind=Span.SPAN_KIND_SERVER,
                start_time_unix_nano=START_NS + i * 1000,
                end_time_unix_nano=START_NS + i * 1000 + 12_000_000,
                attributes=_pairs(
                    http__request__method="GET",
                    http__response__status_code=200,
                    http__route="/orders/{id}",
                    url__path=f"/orders/{i}",
                    url__scheme="http",
                    server__address="shop.internal",
                    server__port=8080,
                    client__address="10.0.0.7",
                    network__protocol__version="1.1",
                    user_agent__original="python-httpx/0.27",
                    enduser__id="u-1182",
                    thread__id=140_213,
                ),
            )
        )
    return request.SerializeToString()


def model_request(
    rng: np.random.Generator,
    n_spans: int,
    n_features: int = 30,
    n_rows: int = 1,
    *,
    model: str = "fraud",
    at_ns: int = START_NS,
) -> bytes:
    """One request of `n_spans` model spans of `n_rows` rows each; normal features, two classes."""
    request, spans = _request("mlspan")
    features = tuple(f"feature_{j}" for j in range(n_features))
    spans.scope.attributes.extend(
        _pairs(
            ml__model__name=model,
            ml__model__version="7",
            ml__model__class="sklearn.pipeline.Pipeline",
            ml__model__task="classification",
            ml__framework__name="scikit-learn",
            ml__feature__names=features,
            ml__feature__types=("numeric",) * n_features,
            ml__prediction__classes=CLASSES,
        )
    )
    ids = rng.bytes(32 * n_spans)
    bits = payload.column_bits([False] * n_features)
    cells = rng.standard_normal((n_spans, n_rows, n_features)).astype("<f4")
    late = rng.random((n_spans, n_rows)).astype("<f4")
    for i in range(n_spans):
        at = ids[32 * i : 32 * i + 32]
        scores = np.stack((1 - late[i], late[i]), axis=1)
        predictions = scores.argmax(axis=1).astype("<i4")[:, None]
        packed = payload.encode(
            n_rows, cells[i], bits, payload.PREDICTION_CLASS, predictions, payload.SCORE_PROBABILITY, scores
        )
        end = at_ns + i * 1000
        spans.spans.append(
            Span(
                trace_id=at[:16],
                span_id=at[16:24],
                parent_span_id=at[24:],
                name=f"predict_proba {model}",
                kind=Span.SPAN_KIND_INTERNAL,
                start_time_unix_nano=end - 2_000_000,
                end_time_unix_nano=end,
                attributes=[
                    KeyValue(key=names.ML_OPERATION_NAME, value=_value("predict_proba")),
                    *_pairs(
                        ml__model__name=model,
                        ml__model__version="7",
                        ml__input__rows=n_rows,
                        ml__input__columns=n_features,
                    ),
                    *_pairs(
                        ml__prediction__class=CLASSES[int(predictions[0, 0])],
                        ml__prediction__score=float(scores[0].max()),
                    ),
                    KeyValue(key=names.ML_PAYLOAD, value=_value(packed)),
                ],
            )
        )
    return request.SerializeToString()
