"""The demo against real backends: what a person would look at, read through the backends' own APIs."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers import (
    Jaeger,
    Prometheus,
    Span,
    Zipkin,
    free_port,
    jaeger,
    jaeger_trace,
    jaeger_traces,
    prometheus,
    prometheus_exemplars,
    prometheus_query,
    wait_until,
    zipkin,
    zipkin_traces,
)

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Demo:
    """A demo that has run, and the backends that it sent to."""

    jaeger: Jaeger
    zipkin: Zipkin
    prometheus: Prometheus
    start: float
    reports: list[dict[str, Any]]
    output: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Half of April, replayed with Jaeger, Zipkin and Prometheus beside it."""
    folder = tmp_path_factory.mktemp("demo")
    port, start = free_port(), time.time()
    with (
        jaeger() as jaeger_server,
        zipkin() as zipkin_server,
        prometheus([("mlspan", f"127.0.0.1:{port}")]) as prometheus_server,
    ):
        command = [
            *(sys.executable, "-m", "examples.flights", "--months", "4", "--share", "0.5"),
            *(
                "--jaeger",
                jaeger_server.otlp_grpc,
                "--zipkin",
                zipkin_server.url,
                "--prometheus",
                prometheus_server.url,
            ),
            *("--metrics-port", str(port), "--folder", str(folder), "--json", str(folder / "out.json")),
        ]
        ran = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=280)
        logs = "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in folder.glob("*.log"))
        assert ran.returncode == 0, ran.stdout + ran.stderr + logs
        yield Demo(
            jaeger_server,
            zipkin_server,
            prometheus_server,
            start,
            json.loads((folder / "out.json").read_text()),
            ran.stdout,
        )


def _parents(trace: list[Span], span: Span) -> list[Span]:
    """The spans above `span`, nearest first."""
    by_id = {other.span_id: other for other in trace}
    above = []
    while span.parent_span_id:
        span = by_id[span.parent_span_id]
        above.append(span)
    return above


def test_jaeger_shows_request_then_weather_call_then_model(demo: Demo) -> None:
    """In Jaeger the model's span and the weather call lie below the FastAPI request, across both services."""
    traces = wait_until(
        lambda: jaeger_traces(demo.jaeger.query_url, "flights", demo.start, limit=50),
        20,
        "traces of flights in Jaeger",
    )
    full = 0
    for trace in traces:
        models = [span for span in trace if span.name == "predict_proba flight-delay"]
        if not models or not {"flights", "weather"} <= {span.service for span in trace}:
            continue
        full += 1
        [model] = models
        assert (model.kind, model.service) == ("INTERNAL", "flights")
        request = _parents(trace, model)[0]
        assert (request.name, request.kind, request.service) == ("POST /delays", "SERVER", "flights")
        asked = next(span for span in trace if span.service == "weather" and span.kind == "SERVER")
        call = _parents(trace, asked)[0]
        assert (call.kind, call.service) == ("CLIENT", "flights")
        assert request in _parents(trace, call)
        assert call.end_ns <= model.start_ns
    assert full > 5


def test_the_model_span_in_jaeger_is_enriched_and_carries_no_payload(demo: Demo) -> None:
    """Jaeger has the readable summary and the anomaly score with their types, and no packed rows."""
    found = jaeger_traces(demo.jaeger.query_url, "flights", demo.start, {"ml.model.name": "flight-delay"}, limit=20)
    models = [span for trace in found for span in trace if span.name == "predict_proba flight-delay"]
    assert models
    for span in models:
        assert "ml.payload" not in span.attributes
        assert span.attributes["ml.model.version"] == "2013q1"
        assert isinstance(span.attributes["ml.input.rows"], int)
        assert span.attributes["ml.input.columns"] == 15
        score, flag = span.attributes["ml.anomaly.score"], span.attributes["ml.anomaly.flag"]
        assert isinstance(score, float)
        assert 0 <= score <= 1
        assert isinstance(flag, bool)
        summary = span.attributes["ml.input.summary"]
        assert isinstance(summary, str)
        # The reference profile knows the airports' names, so that they can be read here.
        assert any(f"origin={name}" in summary for name in ("EWR", "JFK", "LGA"))
    # What is the model's own is said once per batch, on the scope.
    assert models[0].scope_attributes["ml.prediction.classes"] == ["in time", "late"]


def test_anomalous_traces_can_be_searched_in_jaeger(demo: Demo) -> None:
    """A flagged call is found by its plain boolean attribute."""
    flagged = jaeger_traces(demo.jaeger.query_url, "flights", demo.start, {"ml.anomaly.flag": "true"}, limit=20)
    for trace in flagged:
        spans = [span for span in trace if span.attributes.get("ml.anomaly.flag") is True]
        assert spans
        assert all(span.attributes["ml.anomaly.features"] for span in spans)


def test_zipkin_shows_the_model_span_below_the_request(demo: Demo) -> None:
    """In Zipkin the model's span is a child of the FastAPI span, enriched, with both services in the trace."""
    traces = wait_until(lambda: zipkin_traces(demo.zipkin.url, "flights", limit=50), 20, "traces of flights in Zipkin")
    checked = 0
    for trace in traces:
        by_id = {span["id"]: span for span in trace if span.get("kind") != "CLIENT" or span["name"].startswith("get")}
        models = [span for span in trace if span["name"] == "predict_proba flight-delay"]
        services = {span["localEndpoint"]["serviceName"] for span in trace}
        if not models or not {"flights", "weather"} <= services:
            continue
        [model] = models
        parent = by_id[model["parentId"]]
        assert (parent["kind"], parent["name"]) == ("SERVER", "post /delays")
        assert "kind" not in model
        assert "ml.payload" not in model["tags"]
        assert 0 <= float(model["tags"]["ml.anomaly.score"]) <= 1
        assert "origin=" in model["tags"]["ml.input.summary"]
        checked += 1
    assert checked > 5


@pytest.mark.parametrize(
    ("expression", "at_least"),
    [
        ("ml_drift_psi_ratio", 15),
        ("ml_drift_ks_ratio", 12),
        ("ml_drift_jensen_shannon_ratio", 15),
        ("ml_drift_wasserstein_ratio", 12),
        ("ml_drift_chi2_ratio", 15),
        ("ml_feature_missing_ratio", 15),
        ("ml_feature_unseen_ratio", 15),
        ('ml_quality_accuracy_ratio{ml_quality_kind="realised"}', 1),
        ('ml_quality_roc_auc_ratio{ml_quality_kind="realised"}', 1),
        ('ml_quality_log_loss_ratio{ml_quality_kind="realised"}', 1),
        ('ml_quality_accuracy_ratio{ml_quality_kind="reference"}', 1),
        ("ml_quality_labels", 1),
        ("ml_quality_coverage_ratio", 1),
        ("ml_operation_duration_seconds_count", 1),
        ("ml_prediction_count_total", 2),
    ],
)
def test_prometheus_has_drift_and_quality(demo: Demo, expression: str, at_least: int) -> None:
    """Drift per feature, realised and reference quality, rate and latency are series in Prometheus."""
    found = prometheus_query(demo.prometheus.url, f"last_over_time({expression}[10m])")
    assert len(found) >= at_least
    for sample in found:
        assert sample.labels["ml_model_name"] == "flight-delay"


def test_an_exemplar_in_prometheus_names_a_trace_that_jaeger_knows(demo: Demo) -> None:
    """From a metric to the trace behind it: the exemplar's trace id opens in Jaeger, with the model's span in it."""
    for expression in ("ml_operation_duration_seconds_bucket", "ml_quality_outcomes_total"):
        found = prometheus_exemplars(demo.prometheus.url, expression, demo.start, time.time())
        assert found, expression
        trace = jaeger_trace(demo.jaeger.query_url, found[-1].labels["trace_id"])
        [span] = [span for span in trace if span.span_id == found[-1].labels["span_id"]]
        assert span.name == "predict_proba flight-delay"


def test_prometheus_counts_every_flight(demo: Demo) -> None:
    """The counter of predicted rows ends at the number of flights that were replayed."""
    total = prometheus_query(demo.prometheus.url, "sum(last_over_time(ml_prediction_count_total[10m]))")
    assert total[0].value == demo.reports[0]["flights"]


def test_realised_performance_equals_scikit_learn_s_on_the_same_flights(demo: Demo) -> None:
    """The month's realised accuracy is what scikit-learn says of the same model on the same flights."""
    import joblib
    from sklearn.metrics import accuracy_score

    from examples.flights import data

    [report] = demo.reports
    folder = Path(report["folder"])
    model = joblib.load(folder / "model.joblib")
    flights = data.flights()
    april = flights[(flights["month"] == 4) & (flights["departure"].dt.day <= 15) & flights["label"].notna()].copy()
    april["day"] = april["departure"].dt.day
    april = april.merge(data.weather(), on=["origin", "month", "day", "hour"], how="left")
    expected = accuracy_score(april["label"], model.predict(april[list(data.FEATURES)]))
    quality = report["quality"]
    assert quality["labels"] == len(april)
    assert quality["realised"]["accuracy"]["value"] == pytest.approx(expected, abs=1e-6)
