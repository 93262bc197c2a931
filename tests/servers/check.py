"""Proof that each server works: start it, send it something real, read it back, return what was found."""

import json
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from .jaeger import jaeger
from .otelcol import otelcol, telemetrygen
from .ports import HOST
from .prometheus import prometheus
from .queries import (
    jaeger_services,
    jaeger_trace,
    jaeger_traces,
    prometheus_exemplars,
    prometheus_query,
    wait_until,
    zipkin_traces,
)
from .zipkin import zipkin

PATIENCE = 20.0
RELAY = """\
extensions:
  file_storage:
    directory: ${env:DATA}
  health_check:
    endpoint: ${env:HEALTH}
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: ${env:OTLP_GRPC}
      http:
        endpoint: ${env:OTLP_HTTP}
processors:
  memory_limiter:
    check_interval: 1s
    limit_mib: 500
  batch:
    timeout: 100ms
connectors:
  span_metrics:
exporters:
  otlp_grpc:
    endpoint: ${env:BACKEND}
    tls:
      insecure: true
    sending_queue:
      storage: file_storage
  debug:
  nop:
service:
  extensions: [file_storage, health_check]
  pipelines:
    traces:
      receivers: [otlp]
      processors: [memory_limiter, batch]
      exporters: [otlp_grpc, span_metrics, nop]
    metrics:
      receivers: [span_metrics]
      exporters: [debug]
"""


def check_jaeger() -> str:
    """Send traces by gRPC and by HTTP, find them by service, attribute and id, none after a restart."""
    since = time.time() - 60
    with jaeger() as server:
        url = server.query_url
        colour = '--telemetry-attributes=colour="blue"'
        telemetrygen("traces", server.otlp_grpc, "--traces=3", "--service=by-grpc", colour)
        telemetrygen("traces", server.otlp_http, "--traces=2", "--service=by-http", http=True)
        traces = wait_until(lambda: jaeger_traces(url, "by-grpc", since), PATIENCE, "traces in Jaeger")
        wait_until(lambda: "by-http" in jaeger_services(url), PATIENCE, "a service in Jaeger")
        assert len(traces) == 3, traces
        root, child = traces[0]
        assert (root.parent_span_id, child.parent_span_id) == ("", root.span_id), traces[0]
        assert jaeger_trace(url, root.trace_id) == traces[0]
        assert jaeger_trace(url, secrets.token_hex(16)) == []
        assert len(jaeger_traces(url, "by-grpc", since, {"colour": "blue"})) == 3
        assert jaeger_traces(url, "by-grpc", since, {"colour": "red"}) == []
        assert len(jaeger_traces(url, "by-http", since)) == 2
        ports = dict(server.ports)
        server.restart()
        assert server.ports == ports
        assert jaeger_services(url) == []
    return f"5 traces; one has the spans {root.name!r} ({root.kind}) and {child.name!r} ({child.kind})"


def check_zipkin() -> str:
    """Post a span and read it back."""
    span = {
        "traceId": secrets.token_hex(16),
        "id": secrets.token_hex(8),
        "kind": "SERVER",
        "name": "predict",
        "timestamp": int(time.time() * 1e6),
        "duration": 1500,
        "localEndpoint": {"serviceName": "shop"},
        "tags": {"ml.model.name": "fraud-model"},
    }
    with zipkin() as server:
        request = urllib.request.Request(
            server.spans_url, json.dumps([span]).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.status == 202
        traces = wait_until(lambda: zipkin_traces(server.url, "shop"), PATIENCE, "the span in Zipkin")
    assert [[found["tags"] for found in trace] for trace in traces] == [[span["tags"]]], traces
    return f"1 span; tags {traces[0][0]['tags']}"


def check_prometheus() -> str:
    """Serve one OpenMetrics counter with an exemplar, and read value and exemplar from Prometheus."""
    trace_id = secrets.token_hex(16)
    began = time.time()
    with _target(trace_id) as (address, accepted), prometheus([("target", address)]) as server:
        samples = wait_until(lambda: prometheus_query(server.url, "predictions_total"), PATIENCE, "a sample")
        exemplars = wait_until(
            lambda: prometheus_exemplars(server.url, "predictions_total", began - 60, time.time() + 60),
            PATIENCE,
            "an exemplar",
        )
        assert samples[0].value == 42.0, samples
        assert exemplars[0].labels == {"trace_id": trace_id}, exemplars
        server.restart()
        assert prometheus_query(server.url, "predictions_total"), "the data outlives a restart"
    return f"predictions_total 42 with the exemplar's trace id; it asks for {accepted[0]!r}"


def check_otelcol() -> str:
    """Send traces through a collector whose back end is dead, start the back end, and find them there."""
    since = time.time() - 60
    with jaeger() as backend, otelcol(RELAY, {"BACKEND": backend.otlp_grpc}) as collector:
        backend.stop()
        telemetrygen("traces", collector.otlp_grpc, "--traces=3", "--service=relayed")
        telemetrygen("traces", collector.otlp_http, "--traces=2", "--service=relayed", http=True)
        backend.start()
        url = backend.query_url
        wait_until(lambda: len(jaeger_traces(url, "relayed", since)) == 5, 60, "5 traces behind the collector")
        with urllib.request.urlopen(collector.metrics_url, timeout=10) as response:
            assert b"otelcol_receiver_accepted_spans" in response.read()
    return "5 traces taken while the back end was down, delivered when it was up"


CHECKS: dict[str, Callable[[], str]] = {
    "jaeger": check_jaeger,
    "zipkin": check_zipkin,
    "prometheus": check_prometheus,
    "otelcol": check_otelcol,
}


@contextmanager
def _target(trace_id: str) -> Iterator[tuple[str, list[str]]]:
    """Serve `/metrics` with one counter; yield its address and a list for the Accept headers received."""
    body = (
        "# TYPE predictions counter\n"
        f'predictions_total{{model="fraud"}} 42 # {{trace_id="{trace_id}"}} 1.0 {time.time():.3f}\n'
        "# EOF\n"
    ).encode()
    accepted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            accepted.append(self.headers.get("Accept", ""))
            self.send_response(200)
            self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"{HOST}:{server.server_address[1]}", accepted
        server.shutdown()
        thread.join()
