"""A shift in live data: one incident, seen in Jaeger, at a webhook, in the metrics and in the report."""

import time
import urllib.request

import numpy as np
import pytest

from mlspan_processor.model_spans import ModelSpans
from tests.integration.running import Processor, at_least
from tests.processor.notify.receiver import receiver
from tests.servers import jaeger, jaeger_trace, jaeger_traces, wait_until

pytestmark = pytest.mark.integration

CONNECTOR = {
    "reference": {"learn_rows": 500},
    "window": {"pane": "1s", "min_rows": 200, "min_labels": 200},
}


def _send(processor: Processor, spans: ModelSpans, random: np.random.Generator, shift: float) -> None:
    """Two hundred rows of now."""
    for _ in range(20):
        rows = random.normal(shift, 1, (10, 2)).astype(np.float32)
        p = 1 / (1 + np.exp(-2 * rows[:, 0]))
        spans.add(rows, (p > 0.5).astype(int), np.stack([1 - p, p], axis=1).astype(np.float32), end=time.time_ns())
    headers = {"Content-Type": "application/x-protobuf"}
    request = urllib.request.Request(f"http://{processor.http}/v1/traces", spans.chunk().data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def test_a_shift_is_one_incident_everywhere() -> None:
    """Opened once; Jaeger shows it as a span of its own that links the calls behind it."""
    with jaeger() as backend, receiver() as webhook:
        notify = {"webhook": {"w": {"url": webhook.url}}, "trace_url": backend.query_url + "/trace/{trace_id}"}
        to = {"otlp_grpc": {"endpoint": backend.otlp_grpc, "tls": {"insecure": True}}}
        with Processor(to, connector={**CONNECTOR, "notify": notify}) as processor:
            spans, random = ModelSpans(seed=time.time_ns()), np.random.default_rng(0)
            for _ in range(10):
                _send(processor, spans, random, 0.0)
                time.sleep(0.5)
            assert processor.get("/v1/incidents")["open"] == []
            deadline = time.monotonic() + 60
            while not webhook.posts and time.monotonic() < deadline:
                _send(processor, spans, random, 1.5)
                time.sleep(0.5)
            [told] = webhook.wait_for(1)[0]["incidents"]
            assert (told["status"], told["model"]) == ("opened", {"name": "fraud", "version": "7"})
            assert told["features"]
            [opened] = processor.get("/v1/incidents")["open"]
            assert opened["id"] == told["id"]
            [trace] = wait_until(
                lambda: at_least(1, jaeger_traces(backend.query_url, "mlspan", 0)), 20, "the incident in Jaeger"
            )
            [span] = trace
            assert span.name == "incident fraud"
            assert span.attributes["ml.incident.id"] == told["id"]
            calls = jaeger_trace(backend.query_url, told["exemplars"][0]["trace_id"])
            assert calls[0].name == "predict fraud"
            with urllib.request.urlopen(f"http://{processor.metrics}/metrics", timeout=5) as answer:
                assert b"ml_incident_count_total{" in answer.read()
