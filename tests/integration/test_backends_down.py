"""Backends that die and come back, or refuse what one client sent, while the rest goes on."""

import re
import signal
import time
import urllib.request
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.running import Processor, at_least, run_application
from tests.servers import jaeger, jaeger_traces, wait_until, zipkin, zipkin_traces

pytestmark = pytest.mark.integration

APPLICATION = Path(__file__).with_name("application.py")


def _metrics_hold(processor: Processor, name: bytes) -> bool:
    with urllib.request.urlopen(f"http://{processor.metrics}/metrics", timeout=5) as answer:
        assert name in answer.read()
    return True


def test_a_dead_backend_is_retried_while_the_other_goes_on() -> None:
    """With Jaeger down Zipkin still gets everything; once Jaeger is back it gets everything too."""
    with jaeger() as jaeger_server, zipkin() as zipkin_server:
        exporters = {
            "otlp_grpc/jaeger": {
                "endpoint": jaeger_server.otlp_grpc,
                "tls": {"insecure": True},
                "retry_on_failure": {"initial_interval": "200ms", "max_interval": "1s"},
            },
            "zipkin": {"endpoint": zipkin_server.spans_url},
        }
        with Processor(exporters) as processor:
            jaeger_server.stop()
            run_application(APPLICATION, processor.grpc, OTEL_SERVICE_NAME="shop", CALLS="40")
            wait_until(lambda: at_least(41, zipkin_traces(zipkin_server.url, "shop")), 20, "41 traces in Zipkin")
            wait_until(lambda: _metrics_hold(processor, b"ml_operation_duration_seconds_count"), 10, "our metrics")
            jaeger_server.start()
            wait_until(
                lambda: at_least(41, jaeger_traces(jaeger_server.query_url, "shop", 0)), 30, "41 traces in Jaeger"
            )


def test_nothing_that_was_acknowledged_is_lost_at_sigterm() -> None:
    """SIGTERM right after the application has ended: everything it sent is in Jaeger, the exit status is 0."""
    with jaeger() as backend:
        to = {"otlp_grpc": {"endpoint": backend.otlp_grpc, "tls": {"insecure": True}}}
        with Processor(to) as processor:
            run_application(APPLICATION, processor.grpc, OTEL_SERVICE_NAME="shop", CALLS="300")
            assert processor.stop(signal.SIGTERM) == 0, processor.log()
        wait_until(lambda: at_least(301, jaeger_traces(backend.query_url, "shop", 0)), 20, "301 traces in Jaeger")


def test_a_span_that_backends_refuse_takes_no_other_with_it() -> None:
    """Jaeger refuses requests with an id of a wrong length, over gRPC and HTTP; the spans beside it arrive, once."""
    batched = {"sending_queue": {"batch": {"flush_timeout": "500ms", "min_size": 1000}}}
    with jaeger() as by_grpc, jaeger() as by_http, zipkin() as zipkin_server:
        exporters = {
            "otlp_grpc": {"endpoint": by_grpc.otlp_grpc, "tls": {"insecure": True}, **batched},
            "otlp_http": {"endpoint": by_http.otlp_http, **batched},
            "zipkin": {"endpoint": zipkin_server.spans_url, **batched},
        }
        with Processor(exporters) as processor:
            for number in range(10):
                _post(processor, "right", bytes([number + 1]) * 16, bytes([number + 1]) * 8)
                _post(processor, "wrong", b"t" * (number % 16), b"s" * 8)
            for backend in (by_grpc, by_http):
                found = wait_until(
                    lambda url=backend.query_url: at_least(10, jaeger_traces(url, "right", 0)),  # type: ignore[misc]  # mypy cannot infer it
                    20,
                    "10 traces in Jaeger",
                )
                assert [len(trace) for trace in found] == [1] * 10
            sent = wait_until(
                lambda: at_least(10, zipkin_traces(zipkin_server.url, "right")), 20, "10 traces in Zipkin"
            )
            assert [len(trace) for trace in sent] == [1] * 10
            assert processor.stop(signal.SIGTERM) == 0, processor.log()
        for name in ("otlp_grpc", "otlp_http"):
            lost = re.findall(rf'exporter "{name}" lost (\d+) spans \(permanent\)', processor.log())
            assert sum(map(int, lost)) == 10


def _post(processor: Processor, service: str, trace_id: bytes, span_id: bytes) -> None:
    """Send one span by OTLP/HTTP."""
    body = ExportTraceServiceRequest()
    resource = body.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    now = time.time_ns()
    resource.scope_spans.add().spans.add(
        name="GET", trace_id=trace_id, span_id=span_id, start_time_unix_nano=now - 1000, end_time_unix_nano=now
    )
    request = urllib.request.Request(
        f"http://{processor.http}/v1/traces",
        body.SerializeToString(),
        {"Content-Type": "application/x-protobuf"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 200
