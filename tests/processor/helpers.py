"""A connector whose clock is set, fed with model spans, and what came out of it."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mlspan_processor.connector import MlspanConnector
from mlspan_processor.model_spans import START, ModelSpans
from mlspan_processor.records import Chunk, Signal
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.testing import Sink

SECOND = 1_000_000_000


class Clock:
    """Nanoseconds since the epoch that move only when told to."""

    def __init__(self) -> None:
        self.now = START + SECOND

    def __call__(self) -> int:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += int(seconds * SECOND)


class Rig:
    """A started connector with sinks behind it."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.connector = MlspanConnector(MlspanSettings.model_validate(settings), "mlspan", self.clock)
        self.traces, self.metrics, self.logs = Sink(), Sink(), Sink()
        self.connector.outputs = {
            Signal.TRACES: self.traces,
            Signal.METRICS: self.metrics,
            Signal.LOGS: self.logs,
        }

    def __enter__(self) -> Self:
        self.connector.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.connector.shutdown(10)

    def send(self, *chunks: Chunk) -> list[Span]:
        """Feed chunks, wait until they have gone on; the spans that came out of them."""
        before = len(self.traces.chunks)
        for chunk in chunks:
            self.connector.consume(chunk)
        self.connector.drain()
        return [span for chunk in self.traces.chunks[before:] for span in spans_of(chunk)]

    def flush(self) -> dict[tuple[Any, ...], Any]:
        """Flush; the points by (metric, sorted attributes)."""
        before = len(self.metrics.chunks)
        self.connector.flush()
        return points_of(self.metrics.chunks[before:])

    def counters(self) -> dict[str, int | float]:
        """All counters."""
        return dict(self.connector.counters())


def spans_of(chunk: Chunk) -> list[Span]:
    """All spans of a chunk."""
    request = ExportTraceServiceRequest.FromString(chunk.data)
    return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


def values_of(owner: Any) -> dict[str, Any]:
    """Attributes as Python values."""
    return {pair.key: value_of(pair.value) for pair in owner.attributes}


def value_of(value: AnyValue) -> Any:
    """An attribute's value as a Python value."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def points_of(chunks: list[Chunk]) -> dict[tuple[Any, ...], Any]:
    """Data points by (metric name, (key, value), …)."""
    found = {}
    for chunk in chunks:
        request = ExportMetricsServiceRequest.FromString(chunk.data)
        for resource in request.resource_metrics:
            assert values_of(resource.resource) == {"service.name": "mlspan"}
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in getattr(metric, metric.WhichOneof("data") or "").data_points:
                        found[(metric.name, *sorted(values_of(point).items()))] = point
    return found


def gauge(points: dict[tuple[Any, ...], Any], name: str, **attributes: str) -> float | None:
    """The value of one gauge of the model fraud@7; attribute names with "_" for "."."""
    point = points.get(key_of(name, **attributes))
    return None if point is None else float(point.as_double)


def key_of(name: str, **attributes: str) -> tuple[Any, ...]:
    """The key of a point of the model fraud@7."""
    pairs = {"ml.model.name": "fraud", "ml.model.version": "7"}
    pairs.update({key.replace("_", "."): value for key, value in attributes.items()})
    return (name, *sorted(pairs.items()))


def normal_rows(n: int, seed: int, columns: int = 2, shift: float = 0.0) -> NDArray[np.float32]:
    """(n, columns) normal features."""
    return np.random.default_rng(seed).normal(shift, 1, (n, columns)).astype(np.float32)


def calls(
    spans: ModelSpans, rows: NDArray[np.float32], seed: int = 0, trace_state: str = "", end: int | None = None
) -> Chunk:
    """One-row calls of a classifier whose probability follows the first feature."""
    rng = np.random.default_rng(seed)
    for row in rows:
        p = float(1 / (1 + np.exp(-row[0] + rng.normal() / 4)))
        spans.add(
            row[None],
            predictions=[p > 0.5],
            scores=np.array([[1 - p, p]], np.float32),
            trace_state=trace_state,
            end=end,
        )
    return spans.chunk()
