"""Names in Prometheus, against the tables of the Collector and of Prometheus' own translator."""

import pytest

from mlspan.semconv import metrics as semconv
from mlspan_exporters.prometheus_names import label_text, labels_of, metric_name, unit_of

NAMES = [
    ("requests", "", "counter", "requests_total"),
    ("requests_total", "", "counter", "requests_total"),
    ("total.requests", "", "counter", "requests_total"),
    ("cpu.usage", "1", "gauge", "cpu_usage_ratio"),
    ("cpu_usage_ratio", "1", "gauge", "cpu_usage_ratio"),
    ("items", "1", "counter", "items_total"),
    ("response_time", "ms", "gauge", "response_time_milliseconds"),
    ("response_time_seconds", "s", "gauge", "response_time_seconds"),
    ("memory_usage", "By", "gauge", "memory_usage_bytes"),
    ("requests", "1/s", "gauge", "requests_per_second"),
    ("throughput", "By/s", "gauge", "throughput_bytes_per_second"),
    ("custom_metric", "custom_unit", "gauge", "custom_metric_custom_unit"),
    ("custom_metric", "{custom}", "gauge", "custom_metric"),
    ("custom_metric", "By/{custom}", "gauge", "custom_metric_bytes"),
    ("custom_metric", "unit@with#special/chars", "gauge", "custom_metric_unit_with_special_per_chars"),
    ("metric__with__underscores", "", "gauge", "metric_with_underscores"),
    ("123metric", "", "gauge", "_123metric"),
    ("@#$%", "", "gauge", ""),
    ("", "s", "gauge", ""),
    ("a:b", "%", "gauge", "a:b_percent"),
    ("system.network.io", "By", "counter", "system_network_io_bytes_total"),
    ("uptime", "d", "gauge", "uptime_days"),
]


@pytest.mark.parametrize(("name", "unit", "kind", "expected"), NAMES)
def test_metric_name(name: str, unit: str, kind: str, expected: str) -> None:
    """Units and types are told at the end, once."""
    assert metric_name(name, unit, kind) == expected


def test_namespace_and_suffixes_are_settings() -> None:
    """A namespace stands in front; without suffixes only characters change."""
    assert metric_name("requests", "1/s", "counter", "my.app") == "my_app_requests_per_second_total"
    assert metric_name("1st", "", "gauge", "app") == "app_1st"
    assert metric_name("http.requests", "s", "counter", suffixes=False) == "http_requests"


def test_our_own_metrics_have_the_documented_names() -> None:
    """The names that dashboards and alerts rely on."""
    found = {
        metric.name: metric_name(metric.name, metric.unit, metric.instrument)
        for metric in vars(semconv).values()
        if isinstance(metric, semconv.Metric)
    }
    assert found["ml.operation.duration"] == "ml_operation_duration_seconds"
    assert found["ml.prediction.count"] == "ml_prediction_count_total"
    assert found["ml.drift.psi"] == "ml_drift_psi_ratio"
    assert found["ml.feature.missing.ratio"] == "ml_feature_missing_ratio"
    assert found["ml.quality.labels"] == "ml_quality_labels"
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("cpu_ratio", "1", "gauge", "ratio"),
        ("cpu", "1", "counter", ""),
        ("time_seconds", "s", "histogram", "seconds"),
        ("seconds_spent", "s", "gauge", ""),
        ("rate_bytes_per_second", "By/s", "gauge", "bytes_per_second"),
        ("rows", "{row}", "gauge", ""),
    ],
)
def test_unit_is_told_only_where_the_name_ends_in_it(name: str, unit: str, kind: str, expected: str) -> None:
    """OpenMetrics' UNIT must be the end of the name."""
    assert unit_of(name, unit, kind) == expected


def test_labels_that_fall_together_are_joined() -> None:
    """Attribute names that become one label have their values joined in the names' order."""
    labels = labels_of([("http.method", "b"), ("http_method", "c"), ("http-method", "a"), ("le", "x")])
    assert labels == {"http_method": "a;b;c", "key_le": "x"}


def test_label_text_is_escaped_and_without_empty_labels() -> None:
    """Quotes, backslashes and line breaks are escaped; an empty label is none."""
    assert label_text({"a": 'q"\\\n', "b": "", "c": "ü"}) == 'a="q\\"\\\\\\n",c="ü"'
