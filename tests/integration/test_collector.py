"""The OpenTelemetry Collector in front of the processor and behind it."""

from pathlib import Path

import pytest

from tests.integration.running import Processor, at_least, run_application
from tests.servers import jaeger, jaeger_traces, otelcol, telemetrygen, wait_until

pytestmark = pytest.mark.integration

APPLICATION = Path(__file__).with_name("application.py")

FRONT = """\
receivers: {otlp: {protocols: {grpc: {endpoint: "${env:OTLP_GRPC}"}}}}
processors: {batch: {timeout: 100ms}}
exporters: {otlp_grpc: {endpoint: "${env:BACKEND}", tls: {insecure: true}}}
service: {pipelines: {traces: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}}
"""

BEHIND = """\
receivers: {otlp: {protocols: {grpc: {endpoint: "${env:OTLP_GRPC}"}}}}
processors:
  tail_sampling:
    decision_wait: 1s
    policies: [{name: anomalous, type: boolean_attribute, boolean_attribute: {key: ml.anomaly.flag, value: true}}]
exporters: {otlp_grpc: {endpoint: "${env:BACKEND}", tls: {insecure: true}}}
service: {pipelines: {traces: {receivers: [otlp], processors: [tail_sampling], exporters: [otlp_grpc]}}}
"""


def test_spans_arrive_through_a_collector_that_batches() -> None:
    """A Collector in front re-batches and compresses what the SDK sent; every model span still counts."""
    with jaeger() as backend:
        to = {"otlp_grpc": {"endpoint": backend.otlp_grpc, "tls": {"insecure": True}}}
        with Processor(to) as processor, otelcol(FRONT, {"BACKEND": processor.grpc}) as collector:
            run_application(APPLICATION, collector.otlp_grpc, OTEL_SERVICE_NAME="shop", CALLS="100")
            [report] = wait_until(
                lambda: at_least(1, [m for m in processor.get("/v1/models")["models"] if round(m["rows"]) == 3100]),
                20,
                "3,100 rows of credit in the processor",
            )
            assert (report["name"], report["version"]) == ("credit", "1")
            traces = wait_until(
                lambda: at_least(101, jaeger_traces(backend.query_url, "shop", 0)),
                20,
                "traces in Jaeger",
            )
            assert {span.name for trace in traces for span in trace} >= {"predict credit", "predict_proba credit"}


def test_a_collector_behind_keeps_the_anomalous_traces() -> None:
    """Tail sampling on ml.anomaly.flag keeps the trace of the odd row and drops the others."""
    with jaeger() as backend, otelcol(BEHIND, {"BACKEND": backend.otlp_grpc}) as collector:
        to = {"otlp_grpc": {"endpoint": collector.otlp_grpc, "tls": {"insecure": True}}}
        with Processor(to, connector={"reference": {"learn_rows": 4000}}) as processor:
            # The reference is learnt from the first run; the second run's last row is far outside it.
            run_application(APPLICATION, processor.grpc, OTEL_SERVICE_NAME="learn", CALLS="0", BATCHES="20")
            run_application(APPLICATION, processor.grpc, OTEL_SERVICE_NAME="shop", CALLS="100", SEED="1")
            traces = wait_until(
                lambda: at_least(1, jaeger_traces(backend.query_url, "shop", 0)), 20, "the anomalous trace in Jaeger"
            )
            flagged = [span for trace in traces for span in trace if span.attributes.get("ml.anomaly.flag") is True]
            assert len(traces) <= 5
            named = [span.attributes["ml.anomaly.features"] for span in flagged]
            assert any(isinstance(names, list) and names[0] == "income" for names in named)
            assert any(span.attributes.get("ml.prediction.id") == "order-99" for span in flagged)


def test_a_client_nobody_here_wrote_is_forwarded_untouched() -> None:
    """telemetrygen's traces and metrics pass through over gRPC and HTTP."""
    with jaeger() as backend:
        to = {"otlp_grpc": {"endpoint": backend.otlp_grpc, "tls": {"insecure": True}}}
        with Processor(to) as processor:
            telemetrygen("traces", processor.grpc, "--traces=50", "--service=by-grpc")
            telemetrygen("traces", processor.http, "--traces=50", "--service=by-http", http=True)
            for service in ("by-grpc", "by-http"):
                traces = wait_until(
                    lambda service=service: at_least(50, jaeger_traces(backend.query_url, service, 0)),  # type: ignore[misc]  # mypy cannot infer it
                    20,
                    f"50 traces of {service} in Jaeger",
                )
                assert all(len(trace) == 2 for trace in traces)
