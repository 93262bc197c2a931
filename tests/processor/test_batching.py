"""Splitting chunks, and the waits between attempts."""

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mlspan_processor.batching import SIZERS, join, split
from mlspan_processor.config.schema import Retry
from mlspan_processor.records import Chunk, Signal
from mlspan_processor.retry import Backoff
from mlspan_processor.testing import trace_chunk


def test_split_keeps_resources_and_scopes() -> None:
    """Each part has its own copy of the resource and scope it needs."""
    chunk = join([trace_chunk(3), trace_chunk(2, "other")])
    parts = split(chunk, SIZERS["items"], 2)
    assert [part.items for part in parts] == [2, 1, 2]
    for part in parts:
        request = ExportTraceServiceRequest.FromString(part.data)
        assert request.resource_spans[0].resource.attributes[0].value.string_value == "shop"


def test_split_counts_data_points() -> None:
    """Metrics are split between metrics, and counted in data points."""
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    for number in range(4):
        metric = scope.metrics.add(name=f"m{number}")
        for _ in range(3):
            metric.gauge.data_points.add(as_int=number)
    parts = split(Chunk(Signal.METRICS, request.SerializeToString(), 12), SIZERS["items"], 6)
    assert [part.items for part in parts] == [6, 6]
    # One metric with more points than the limit stays whole.
    assert [part.items for part in split(parts[0], SIZERS["items"], 1)] == [3, 3]


def test_backoff_is_jittered_within_its_factor() -> None:
    """Each wait lies within interval × (1 ± factor); intervals grow to max_interval."""
    low = Backoff(Retry(), uniform=lambda low, high: low)
    high = Backoff(Retry(), uniform=lambda low, high: high)
    assert [low.next_seconds(None, 0) for _ in range(7)] == pytest.approx([2.5, 3.75, 5.625, 8.4375, 12.65625, 15, 15])
    assert high.next_seconds(None, 0) == pytest.approx(7.5)


def test_backoff_without_end() -> None:
    """max_elapsed_time 0 never gives up; enabled false gives up at once."""
    assert Backoff(Retry(max_elapsed_time=0)).next_seconds(None, 1e9) is not None
    assert Backoff(Retry(enabled=False)).next_seconds(None, 0) is None
