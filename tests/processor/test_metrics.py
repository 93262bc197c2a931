"""What goes out as OTLP metrics, and the report."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from scipy import stats

import mlspan.semconv
from mlspan.profile import build_profile, to_json
from mlspan.semconv.metrics import DURATION_BUCKETS
from mlspan_processor import metrics as metrics_module
from mlspan_processor.model_spans import ModelSpans, feedback_spans, prediction_id
from tests.processor.helpers import Rig, calls, gauge, key_of, normal_rows


def full_rig(tmp_path: Path) -> Rig:
    """A connector with a reference that has performance; 300 shifted rows and 100 labels."""
    reference = normal_rows(5000, 0)
    profile = build_profile(
        reference,
        ["a", "b"],
        ["numeric"] * 2,
        model_name="fraud",
        classes=("no", "yes"),
        performance={"accuracy": 0.93},
    )
    file = tmp_path / "fraud.json"
    file.write_text(to_json(profile))
    rig = Rig(reference={"path": str(file)})
    rig.connector.start()
    spans, rows = ModelSpans(), normal_rows(300, 1)
    rows[:, 0] += 1
    pairs = []
    for i, row in enumerate(rows):
        p = float(1 / (1 + np.exp(-row[0])))
        span = spans.add(row[None], [int(p > 0.5)], np.array([[1 - p, p]], np.float32))
        if i < 100:
            pairs.append((prediction_id(span), "yes" if i % 3 else "no"))
    spans.add(None, error="ValueError")
    rig.send(spans.chunk(), feedback_spans(pairs))
    return rig


def test_names_units_and_attributes_are_those_of_the_registry(tmp_path: Path) -> None:
    """Every metric that goes out is in registry.yaml, with its unit, instrument and attributes."""
    registry = yaml.safe_load((Path(mlspan.semconv.__file__).parent / "registry.yaml").read_text())
    known = {group["metric_name"]: group for group in registry["groups"] if group["type"] == "metric"}
    rig = full_rig(tmp_path)
    rig.flush()
    rig.connector.shutdown()
    kinds = {"gauge": "gauge", "counter": "sum", "updowncounter": "sum", "histogram": "histogram"}
    seen = set()
    for chunk in rig.metrics.chunks:
        for scope in ExportMetricsServiceRequest.FromString(chunk.data).resource_metrics[0].scope_metrics:
            assert scope.scope.name == "mlspan_processor"
            for metric in scope.metrics:
                group = known[metric.name]
                assert (metric.unit, kinds[group["instrument"]]) == (group["unit"], metric.WhichOneof("data"))
                allowed = {attribute["ref"] for attribute in group["attributes"]}
                for point in getattr(metric, kinds[group["instrument"]]).data_points:
                    found = {pair.key for pair in point.attributes}
                    assert found <= (allowed or {"state"})
                seen.add(metric.name)
    regression_only = {"mae", "mse", "rmse", "r2", "mape", "median_ae", "bias"}
    multilabel_only = {"hamming_loss", "precision_micro", "recall_micro", "f1_micro"}
    # What is judged needs closed windows: tests/processor/test_judge.py.
    judged = {
        name
        for name in known
        if name.startswith(("ml.incident.", "ml.segment.", "ml.version.", "ml.drift.multivariate."))
    }
    judged |= {"ml.drift.p_adjusted", "ml.drift.effect", "ml.drift.effect_threshold", "ml.drift.drifted"}
    others = {f"ml.quality.{name}" for name in regression_only | multilabel_only | {"custom"}}
    assert set(known) - seen - judged == others


def test_drift_gauges_are_those_of_the_raw_rows(tmp_path: Path) -> None:
    """The shifted feature, its window and the p-value; KS within one bin of scipy's on the raw rows."""
    rig = full_rig(tmp_path)
    points = rig.flush()
    rig.connector.shutdown()
    assert gauge(points, "ml.drift.window.rows") == 300
    exact = stats.ks_2samp(normal_rows(5000, 0)[:, 0], normal_rows(300, 1)[:, 0] + 1)
    assert gauge(points, "ml.drift.ks", ml_feature_name="a") == pytest.approx(exact.statistic, abs=0.06)
    assert gauge(points, "ml.drift.wasserstein", ml_feature_name="a") == pytest.approx(1.0, abs=0.15)
    psi = {name: gauge(points, "ml.drift.psi", ml_feature_name=name) or 0.0 for name in "ab"}
    p_value = {name: gauge(points, "ml.drift.p_value", ml_feature_name=name) or 0.0 for name in "ab"}
    assert psi["a"] > 0.25 > psi["b"]
    assert p_value["a"] < 1e-6 < 0.001 < p_value["b"]
    assert gauge(points, "ml.feature.missing.ratio", ml_feature_name="b") == 0
    assert gauge(points, "ml.quality.accuracy", ml_quality_kind="reference") == 0.93


def test_durations_counts_and_exemplars(tmp_path: Path) -> None:
    """Cumulative, with errors apart; exemplars are of this interval only and point at real spans."""
    rig = full_rig(tmp_path)
    rig.clock.advance(10)
    points = rig.flush()
    rig.clock.advance(10)
    again = rig.flush()
    rig.connector.shutdown()
    key = key_of("ml.operation.duration", ml_operation_name="predict")
    histogram = points[key]
    assert histogram.count == 300
    assert sum(histogram.bucket_counts) == 300
    assert histogram.sum == pytest.approx(0.3)
    assert tuple(histogram.explicit_bounds) == DURATION_BUCKETS
    assert histogram.bucket_counts[DURATION_BUCKETS.index(0.001)] == 300  # 1 ms lies in (0.0005, 0.001]
    assert len(histogram.exemplars) == 1
    assert len(histogram.exemplars[0].trace_id) == 16
    failed = points[key_of("ml.operation.duration", ml_operation_name="predict", error_type="ValueError")]
    assert failed.count == 1
    assert again[key].count == 300
    assert not again[key].exemplars
    assert again[key].start_time_unix_nano == histogram.start_time_unix_nano < histogram.time_unix_nano
    said = [points[key_of("ml.prediction.count", ml_prediction_class=text)].as_int for text in ("no", "yes")]
    assert sum(said) == 300


def test_nothing_is_published_instead_of_a_wrong_number() -> None:
    """Without reference, labels or a second class, the gauges are absent, not zero."""
    with Rig() as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(10, 0)))
        names = {key[0] for key in rig.flush()}
        assert not any(name.startswith(("ml.drift.", "ml.feature.")) for name in names)
        assert "ml.quality.accuracy" not in names
        span = spans.add(normal_rows(1, 5), [1], np.array([[0.5, 0.5]], np.float32))
        rig.send(spans.chunk(), feedback_spans([(prediction_id(span), "yes")]))
        names = {key[0] for key in rig.flush()}
        assert "ml.quality.accuracy" in names
        assert "ml.quality.roc_auc" not in names


def test_features_beyond_the_limit_are_left_to_the_report() -> None:
    """Answers come first, then features in order; what is left out is counted."""
    columns = tuple(f"x{j}" for j in range(20))
    with Rig(max_features=5, reference={"learn_rows": 100}) as rig:
        spans = ModelSpans(columns=columns, types=["numeric"] * 20)
        rig.send(calls(spans, normal_rows(100, 0, 20)))
        rig.send(calls(spans, normal_rows(50, 1, 20)))
        published = {dict(key[1:])["ml.feature.name"] for key in rig.flush() if key[0] == "ml.drift.psi"}
        assert published == {"prediction", "score", "x0", "x1", "x2"}
        assert rig.counters()["unpublished_features"] == 17
        assert len(rig.connector.report("fraud")["drift"]["features"]) == 22


def test_large_flushes_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request holds more than MAX_POINTS points; none is lost."""
    monkeypatch.setattr(metrics_module, "MAX_POINTS", 7)
    with Rig(reference={"learn_rows": 100}) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(150, 0)))
        rig.send(calls(spans, normal_rows(50, 1)))
        points = rig.flush()
        assert all(chunk.items <= 7 for chunk in rig.metrics.chunks)
        assert sum(chunk.items for chunk in rig.metrics.chunks) == len(points) > 30


def test_report_is_json_and_sorted_by_effect(tmp_path: Path) -> None:
    """The whole report can be written as JSON; the shifted feature is first among the inputs."""
    rig = full_rig(tmp_path)
    report = json.loads(json.dumps(rig.connector.report("fraud"), allow_nan=False))
    status = json.loads(json.dumps(rig.connector.status(), allow_nan=False))
    rig.connector.shutdown()
    inputs = [row for row in report["drift"]["features"] if row["kind"] == "input"]
    assert inputs[0]["name"] == "a"
    assert inputs[0]["mean"] == pytest.approx(1, abs=0.2)
    assert inputs[0]["reference_mean"] == pytest.approx(0, abs=0.1)
    effects = [row["effect"] for row in report["drift"]["features"]]
    assert effects == sorted(effects, reverse=True)
    assert report["quality"]["labels"] == 100
    assert report["quality"]["coverage"] == pytest.approx(1 / 3)
    low, high = report["quality"]["accuracy_interval"]
    assert low < report["quality"]["realised"]["accuracy"]["value"] < high
    assert report["quality"]["reference"] == {"accuracy": 0.93}
    assert status["models"][0]["reference"]["state"] == "ready"
    assert status["labels"]["joined"] == 100


def test_report_of_a_range_and_of_unknown_models() -> None:
    """A time range takes the panes that overlap it; an unknown model is a KeyError."""
    with Rig(reference={"learn_rows": 100}) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(100, 0)))
        start = rig.clock.now
        for step in range(5):
            rig.clock.advance(60)
            rig.send(calls(spans, normal_rows(10 + step, step + 1), end=rig.clock.now))
        report = rig.connector.report("fraud", None, start + 90 * 10**9, start + 150 * 10**9)
        assert report["drift"]["rows"] == 11
        assert rig.connector.report("fraud", "7", 0, 1)["drift"]["reason"] == "no rows in the window"
        for name, version in (("other", None), ("fraud", "8")):
            with pytest.raises(KeyError):
                rig.connector.report(name, version)
