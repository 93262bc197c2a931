"""Stage 8, Prometheus store: OTLP metrics in, the series that the next scrape shows.

Reads requests of metrics; keeps families of series by their Prometheus name and labels, at most `max_series`
samples of a scrape (a histogram of 15 buckets is 17), each until it was not updated for `expiration_seconds`
or its sender says that it is gone. What cannot be shown is counted with its reason: `counters()`. Not
thread-safe; the exporter holds a lock.
Source: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    DataPointFlags,
    Metric,
    ScopeMetrics,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from mlspan_processor.records import Counters

from .exponential import ExponentialHistogram
from .prometheus_names import label_text, labels_of, metric_name, unit_of
from .prometheus_series import Histogram, Number, Series, Summary
from .values import is_list, text_map, text_of

DELTA: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
NO_VALUE: Final = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
IDENTITY: Final = ("service.name", "service.namespace", "service.instance.id")
"""Resource attributes that become the labels job and instance."""
SUFFIXES: Final = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
    "summary": ("", "_count", "_sum", "_created"),
}
"""The names that a family takes, so that no other may have them."""
MAX_NAMES: Final = 10_000


@dataclass(slots=True)
class Family:
    """Series of one name (a counter's is without `_total`), by their labels as they stand between braces."""

    name: str
    kind: str
    unit: str
    help: str
    series: dict[str, Series] = field(default_factory=dict)


@dataclass(slots=True)
class Target:
    """One resource, as `target_info` shows it."""

    labels: str
    updated: float


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What the store needs of the exporter's settings."""

    namespace: str = ""
    const_labels: dict[str, str] = field(default_factory=dict)
    resource_labels: bool = False
    scope_labels: bool = True
    suffixes: bool = True
    expiration_seconds: float = 300.0
    max_series: int = 100_000


class Store:
    """What is shown to Prometheus."""

    def __init__(self, settings: StoreSettings) -> None:
        self.families: dict[str, Family] = {}
        self.targets: dict[tuple[str, str], Target] = {}
        self._settings = settings
        self._constant = labels_of(settings.const_labels.items())
        self._owner: dict[str, str] = {}
        self._names: dict[tuple[str, str, str], tuple[str, str]] = {}
        self._samples = 0
        self._dropped: Counter[str] = Counter()

    def counters(self) -> Counters:
        """Return samples held, and data points not shown by reason."""
        return {"samples": self._samples} | {f"dropped_{k}": v for k, v in sorted(self._dropped.items())}

    def update(self, request: ExportMetricsServiceRequest, now: float) -> Counter[str]:
        """Take a request over at `now` (monotonic seconds); return the points dropped, by reason."""
        dropped: Counter[str] = Counter()
        if self._samples >= self._settings.max_series:
            self.expire(now)
        for resource_metrics in request.resource_metrics:
            resource = self._resource_labels(resource_metrics.resource, now)
            for scope_metrics in resource_metrics.scope_metrics:
                shared = self._constant | self._scope_labels(scope_metrics) | resource
                for metric in scope_metrics.metrics:
                    self._metric(metric, shared, now, dropped)
        self._dropped += dropped
        return dropped

    def expire(self, now: float) -> None:
        """Forget what was not updated in time."""
        oldest = now - self._settings.expiration_seconds
        for family in list(self.families.values()):
            for labels in [key for key, series in family.series.items() if series.updated < oldest]:
                self._remove(family, labels)
            self._forget_empty(family)
        self.targets = {key: target for key, target in self.targets.items() if target.updated >= oldest}

    def _metric(self, metric: Metric, shared: dict[str, str], now: float, dropped: Counter[str]) -> None:
        data_kind = metric.WhichOneof("data")
        if data_kind is None:
            return
        data: Any = getattr(metric, data_kind)
        delta = getattr(data, "aggregation_temporality", None) == DELTA
        kind = _kind(data_kind, data)
        if kind is None:
            dropped["temporality"] += len(data.data_points)
            return
        family = self._family(metric, kind)
        if isinstance(family, str):
            dropped[family] += len(data.data_points)
            return
        for point in data.data_points:
            labels = label_text(_point_labels(point.attributes) | shared)
            if point.flags & NO_VALUE:
                self._remove(family, labels)
                continue
            reason = self._point(family, labels, point, data_kind, now, delta=delta)
            if reason is not None:
                dropped[reason] += 1
        self._forget_empty(family)

    def _point(self, family: Family, labels: str, point: Any, data_kind: str, now: float, *, delta: bool) -> str | None:
        """Return why the point was dropped, None when it was not."""
        known = family.series.get(labels)
        if known is None and self._samples >= self._settings.max_series:
            return "series_limit"
        series = known or _new_series(data_kind)
        before = series.samples if known is not None else 0
        if not _update(series, point, family.kind, delta=delta):
            return "invalid"
        series.updated = now
        family.series[labels] = series
        self._samples += series.samples - before
        return None

    def _family(self, metric: Metric, kind: str) -> Family | str:
        """Return the metric's family, or why it can have none."""
        key = (metric.name, metric.unit, kind)
        known = self._names.get(key)
        if known is None:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            name = metric_name(*key, self._settings.namespace, suffixes=self._settings.suffixes)
            name = name.removesuffix("_total") if kind == "counter" else name
            known = self._names[key] = (name, unit_of(name, metric.unit, kind))
        name, unit = known
        family = self.families.get(name)
        if family is None:
            if not name:
                return "name"
            if any(name + suffix in self._owner for suffix in SUFFIXES[kind]):
                return "name_conflict"
            family = self.families[name] = Family(name, kind, unit, metric.description)
            self._owner.update(dict.fromkeys((name + suffix for suffix in SUFFIXES[kind]), name))
        return family if family.kind == kind else "type_conflict"

    def _remove(self, family: Family, labels: str) -> None:
        series = family.series.pop(labels, None)
        if series is not None:
            self._samples -= series.samples

    def _forget_empty(self, family: Family) -> None:
        if not family.series and self.families.get(family.name) is family:
            del self.families[family.name]
            for suffix in SUFFIXES[family.kind]:
                self._owner.pop(family.name + suffix, None)

    def _resource_labels(self, resource: Resource, now: float) -> dict[str, str]:
        attributes = text_map(resource.attributes)
        identity = _identity(attributes)
        others = [(key, value) for key, value in attributes.items() if key not in IDENTITY]
        if identity and others:
            key = (identity.get("job", ""), identity.get("instance", ""))
            # Bounded by the same number as the samples, and expiring like them.
            if key in self.targets or len(self.targets) < self._settings.max_series:
                self.targets[key] = Target(label_text(labels_of(others) | identity), now)
        return labels_of(attributes.items()) | identity if self._settings.resource_labels else identity

    def _scope_labels(self, scope_metrics: ScopeMetrics) -> dict[str, str]:
        if not self._settings.scope_labels:
            return {}
        scope: InstrumentationScope = scope_metrics.scope
        own = [(f"otel.scope.{pair.key}", text_of(pair.value)) for pair in scope.attributes if not is_list(pair.value)]
        return labels_of(own) | {
            "otel_scope_name": scope.name,
            "otel_scope_version": scope.version,
            "otel_scope_schema_url": scope_metrics.schema_url,
        }


def _kind(data_kind: str, data: Any) -> str | None:
    """Return Prometheus' type; None without one: an unknown temporality, deltas that may fall."""
    if data_kind in ("gauge", "summary"):
        return data_kind
    temporality = data.aggregation_temporality
    if data_kind == "sum":
        if data.is_monotonic:
            return "counter" if temporality in (DELTA, CUMULATIVE) else None
        return "gauge" if temporality == CUMULATIVE else None
    return "histogram" if temporality in (DELTA, CUMULATIVE) else None


def _new_series(data_kind: str) -> Series:
    if data_kind in ("gauge", "sum"):
        return Number()
    if data_kind == "histogram":
        return Histogram()
    return ExponentialHistogram() if data_kind == "exponential_histogram" else Summary()


def _update(series: Series, point: Any, kind: str, *, delta: bool) -> bool:
    if isinstance(series, Number):
        return series.update(point, delta=delta, counter=kind == "counter")
    if isinstance(series, ExponentialHistogram):
        return hasattr(point, "positive") and series.update_exponential(point, delta=delta)
    if isinstance(series, Histogram):
        return hasattr(point, "explicit_bounds") and series.update(point, delta=delta)
    return series.update(point)


def _point_labels(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return labels_of((pair.key, text_of(pair.value)) for pair in attributes)


def _identity(attributes: dict[str, str]) -> dict[str, str]:
    """Return the labels job and instance of a resource, without those that it does not tell."""
    service, namespace = attributes.get("service.name", ""), attributes.get("service.namespace", "")
    job = f"{namespace}/{service}" if namespace and service else service
    labels = {"job": job, "instance": attributes.get("service.instance.id", "")}
    return {name: value for name, value in labels.items() if value}
