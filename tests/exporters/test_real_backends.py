"""The exporters against real backends: Jaeger, Zipkin, Prometheus, and a Collector that reads everything."""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mlspan_exporters.file import FileExporter
from mlspan_exporters.otlp_grpc import OtlpGrpcExporter
from mlspan_exporters.otlp_http import OtlpHttpExporter
from mlspan_exporters.prometheus import PrometheusExporter
from mlspan_exporters.testing import chunk_of
from mlspan_exporters.zipkin import ZipkinExporter
from mlspan_processor.records import ExportResult, Signal
from tests.servers import (
    free_port,
    jaeger,
    jaeger_trace,
    otelcol,
    prometheus,
    prometheus_exemplars,
    prometheus_query,
    wait_until,
    zipkin,
    zipkin_traces,
)

from . import requests
from .requests import attributes, counter, exemplar, histogram, histogram_point, metrics, model_span, point

pytestmark = pytest.mark.integration

COLLECTOR = """
receivers:
  otlp: {protocols: {grpc: {endpoint: "${env:OTLP_GRPC}"}, http: {endpoint: "${env:OTLP_HTTP}"}}}
exporters:
  debug: {verbosity: detailed, sampling_initial: 1000}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
    metrics: {receivers: [otlp], exporters: [debug]}
    logs: {receivers: [otlp], exporters: [debug]}
"""


@contextmanager
def running(exporter_class: Any, **settings: Any) -> Iterator[Any]:
    """Give a started exporter."""
    exporter = exporter_class(exporter_class.Config.model_validate(settings), "test")
    exporter.start()
    try:
        yield exporter
    finally:
        exporter.shutdown()


def recent(**changes: Any) -> tuple[Span, Span]:
    """Return a client's span and a model call inside it, of a new trace and of now."""
    now = time.time_ns() - 5_000_000_000
    trace_id, parent, child = secrets.token_bytes(16), secrets.token_bytes(8), secrets.token_bytes(8)
    times: dict[str, Any] = {"trace_id": trace_id, "start_time_unix_nano": now, "end_time_unix_nano": now + 40_000_000}
    client = Span(
        span_id=parent,
        name="GET",
        kind=Span.SPAN_KIND_CLIENT,
        attributes=attributes({"server.address": "inventory", "server.port": 80}),
        **times,
    )
    return client, model_span(span_id=child, parent_span_id=parent, **times, **changes)


@pytest.mark.parametrize("way", ["grpc", "grpc-gzip", "http", "http-json"])
def test_jaeger_has_the_trace(way: str) -> None:
    """Jaeger shows both spans with their attributes, whichever way they came."""
    client, call = recent()
    with jaeger() as server:
        if way.startswith("grpc"):
            compression = "gzip" if way == "grpc-gzip" else "none"
            sender = running(
                OtlpGrpcExporter, endpoint=server.otlp_grpc, tls={"insecure": True}, compression=compression
            )
        else:
            encoding = "json" if way == "http-json" else "proto"
            sender = running(OtlpHttpExporter, endpoint=server.otlp_http, encoding=encoding)
        with sender as exporter:
            assert exporter.export(chunk_of(requests.traces(client, call)), 10.0) == ExportResult()
        spans = wait_until(lambda: jaeger_trace(server.query_url, call.trace_id.hex()), 10, "the trace in Jaeger")
    found = {span.name: span for span in spans}
    assert found["predict fraud-model"].parent_span_id == found["GET"].span_id
    assert found["predict fraud-model"].attributes["real"] == 0.1
    assert found["predict fraud-model"].attributes["bytes"] == b"\x00\xffpayload"
    assert found["predict fraud-model"].status == "ERROR"
    assert found["predict fraud-model"].start_ns == call.start_time_unix_nano


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_zipkin_has_the_trace_and_the_dependency(compression: str) -> None:
    """Zipkin shows both spans, the failure, the annotations, and whom the client called."""
    client, call = recent()
    with zipkin() as server:
        with running(ZipkinExporter, endpoint=server.spans_url, compression=compression) as exporter:
            assert exporter.export(chunk_of(requests.traces(client, call)), 10.0) == ExportResult()
        [trace] = wait_until(lambda: zipkin_traces(server.url, "shop"), 10, "the trace in Zipkin")
    found = {span["name"]: span for span in trace}
    model, caller = found["predict fraud-model"], found["get"]
    assert model["traceId"] == call.trace_id.hex()
    assert model["parentId"] == caller["id"] == client.span_id.hex()
    assert model["timestamp"] == call.start_time_unix_nano // 1000
    assert model["duration"] == 40_000
    assert model["tags"]["error"] == "ValueError"
    assert model["tags"]["list"] == '["a",1,2.5,"NaN",null,"AQ=="]'
    assert {note["value"] for note in model["annotations"]} == {'"threshold": {"at":0.5}', "plain"}
    assert caller["remoteEndpoint"] == {"serviceName": "inventory", "port": 80}


def test_prometheus_scrapes_values_and_exemplars() -> None:
    """Prometheus reads every sample of both histogram and counter, and keeps the exemplars."""
    endpoint = f"127.0.0.1:{free_port()}"
    start = time.time()
    now = time.time_ns()
    items = [
        counter(point(12, now, {"ml.prediction.class": "fraud"}, exemplars=[exemplar(1.0)])),
        histogram(histogram_point([1, 2, 0, 1], now, exemplars=[exemplar(0.05), exemplar(7.0)])),
        *requests.every_metric()[3:],
    ]
    for item in items[:2]:
        data: Any = getattr(item, item.WhichOneof("data") or "")
        for held in data.data_points[0].exemplars:
            held.time_unix_nano = now
    with running(PrometheusExporter, endpoint=endpoint) as exporter, prometheus([("mlspan", endpoint)]) as server:
        assert exporter.export(chunk_of(metrics(*items)), 1.0) == ExportResult()
        wait_until(lambda: prometheus_query(server.url, "ml_prediction_count_total"), 20, "the first scrape")
        [rows] = prometheus_query(server.url, 'ml_prediction_count_total{ml_prediction_class="fraud"}')
        assert rows.value == 12
        assert rows.labels["exported_job"] == "eu/shop"
        buckets = {
            row.labels["le"]: row.value for row in prometheus_query(server.url, "ml_operation_duration_seconds_bucket")
        }
        assert buckets == {"0.01": 1, "0.1": 3, "1.0": 3, "+Inf": 4}
        assert prometheus_query(server.url, "queue_wait_milliseconds_count")[0].value == 8
        assert prometheus_query(server.url, "legacy_bytes_sum")[0].value == 6
        assert prometheus_query(server.url, "queue_size")[0].value == -4
        assert prometheus_query(server.url, "target_info")[0].labels["host_name"] == "node-7"
        assert prometheus_query(server.url, 'up{job="mlspan"}')[0].value == 1
        found = wait_until(
            lambda: prometheus_exemplars(server.url, '{__name__=~"ml_.*"}', start - 60, time.time() + 60),
            10,
            "the exemplars",
        )
    assert {(row.series["__name__"], row.value) for row in found} == {
        ("ml_prediction_count_total", 1.0),
        ("ml_operation_duration_seconds_bucket", 0.05),
        ("ml_operation_duration_seconds_bucket", 7.0),
    }
    assert all(row.labels["trace_id"] == requests.TRACE_ID.hex() for row in found)


def test_collector_reads_all_signals_in_both_encodings(tmp_path: Path) -> None:
    """A Collector takes traces, metrics and logs over gRPC and HTTP, and what the file exporter wrote."""
    chunks = [chunk_of(getattr(requests, name)()) for name in ("traces", "metrics", "logs")]
    path = tmp_path / "out.jsonl"
    with otelcol(COLLECTOR) as server:
        for sender in (
            running(OtlpGrpcExporter, endpoint=f"http://{server.otlp_grpc}", compression="gzip"),
            running(OtlpHttpExporter, endpoint=server.otlp_http),
            running(OtlpHttpExporter, endpoint=server.otlp_http, encoding="json"),
        ):
            with sender as exporter:
                assert [exporter.export(chunk, 10.0) for chunk in chunks] == [ExportResult()] * 3
        with running(FileExporter, path=str(path)) as exporter:
            for chunk in chunks:
                exporter.export(chunk, 1.0)
        urls = {"resourceSpans": "traces", "resourceMetrics": "metrics", "resourceLogs": "logs"}
        for line in path.read_bytes().splitlines():
            _post(f"{server.otlp_http}/v1/{urls[next(iter(json.loads(line)))]}", line)
        wait_until(lambda: server.output_since_start().count("EventName: ml.anomaly") == 4, 10, "the log events")
        text = server.output_since_start()
    assert text.count("predict fraud-model") == 4
    assert text.count("-> bytes: Bytes(") == 4
    assert text.count("Name: queue.wait") == 4
    assert {chunk.signal for chunk in chunks} == set(Signal)


def _post(url: str, body: bytes) -> None:
    import urllib.request

    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200
