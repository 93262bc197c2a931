"""Backends that die and come back, while the rest goes on."""

import signal
import urllib.request
from pathlib import Path

import pytest

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
