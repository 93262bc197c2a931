"""The store of series: temporality, time, expiry, limits, conflicts."""

from collections import Counter
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    DataPointFlags,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from mlspan_exporters.exponential import MAX_BUCKETS, ExponentialHistogram
from mlspan_exporters.prometheus_series import Histogram, Number
from mlspan_exporters.prometheus_store import Store, StoreSettings

from .requests import (
    CUMULATIVE,
    DELTA,
    END_NS,
    attributes,
    counter,
    every_metric,
    exemplar,
    exponential,
    gauge,
    histogram,
    histogram_point,
    metrics,
    point,
)

PLAIN = Resource(attributes=attributes({"service.name": "shop"}))
SECOND = 1_000_000_000
NO_VALUE = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK


def store(**settings: Any) -> Store:
    """Return a store without scope labels."""
    return Store(StoreSettings(**({"scope_labels": False} | settings)))


def put(target: Store, *items: Metric, now: float = 0.0) -> Counter[str]:
    """Give metrics to a store."""
    return target.update(metrics(*items, resource=PLAIN), now)


def only(target: Store) -> Any:
    """Return the only series."""
    [family] = target.families.values()
    [series] = family.series.values()
    return series


def test_cumulative_points_replace() -> None:
    """A cumulative point is the new value, also after a restart; an older one changes nothing."""
    target = store()
    for value, time in ((5, 10), (7, 20), (6, 15), (2, 30)):
        put(target, counter(point(value, time * SECOND)))
        if value == 6:
            assert only(target).value == 7
    assert only(target).value == 2


def test_delta_points_add_up() -> None:
    """Deltas add up over gaps; one that comes twice or late counts once."""
    target = store()
    for value, time in ((5, 10), (7, 20), (7, 20), (1, 15), (2, 60)):
        assert not put(target, counter(point(value, time * SECOND), temporality=DELTA))
    assert only(target).value == 14


def test_delta_histograms_add_up_and_new_bounds_begin_anew() -> None:
    """Counts and sum of deltas add up bucket by bucket; with other bounds they begin again."""
    target = store()
    put(target, histogram(histogram_point([1, 0, 0, 2], 10 * SECOND), temporality=DELTA))
    put(target, histogram(histogram_point([1, 1, 0, 0], 20 * SECOND), temporality=DELTA))
    series = only(target)
    assert isinstance(series, Histogram)
    assert (series.counts, series.count, series.sum) == ([2, 1, 0, 2], 5, 0.5)
    other = histogram_point([3, 4], 30 * SECOND, explicit_bounds=[1.0])
    put(target, histogram(other, temporality=DELTA))
    assert (series.bounds, series.counts, series.sum) == ((1.0,), [3, 4], 0.25)
    assert target.counters()["samples"] == series.samples == 4


def test_sum_that_is_missing_once_stays_missing() -> None:
    """A delta without sum makes the sum unknown."""
    target = store()
    without = histogram_point([1, 0, 0, 0], 10 * SECOND)
    without.ClearField("sum")
    put(target, histogram(without, temporality=DELTA))
    put(target, histogram(histogram_point([1, 0, 0, 0], 20 * SECOND), temporality=DELTA))
    assert only(target).sum is None


def test_histogram_without_buckets_has_the_infinite_one() -> None:
    """Count and sum alone are a histogram of one bucket."""
    target = store()
    put(target, histogram(HistogramDataPoint(time_unix_nano=END_NS, count=4, sum=2.0)))
    assert (only(target).bounds, only(target).counts) == ((), [4])


@pytest.mark.parametrize(
    "bad",
    [
        counter(point(-1)),
        counter(point(float("nan"))),
        counter(point(-1), temporality=DELTA),
        histogram(histogram_point([1, 2])),
        histogram(histogram_point([1, 2, 3, 4], explicit_bounds=[1, 1, 2])),
        histogram(histogram_point([1, 2, 3, 4], explicit_bounds=[2, 1, 3])),
        histogram(histogram_point([1, 2, 3, 4], explicit_bounds=[1, 2, float("nan")])),
    ],
    ids=lambda metric: metric.name,
)
def test_what_prometheus_cannot_hold_is_dropped_and_counted(bad: Metric) -> None:
    """A falling or unknown counter and a histogram of contradictions are dropped with a reason."""
    target = store()
    assert put(target, bad) == {"invalid": 1}
    assert target.families == {}
    assert target.counters() == {"samples": 0, "dropped_invalid": 1}


def test_infinite_bound_is_the_last_bucket() -> None:
    """A sender that lists infinity among its bounds gets no second infinite bucket."""
    target = store()
    put(target, histogram(histogram_point([1, 2, 3, 0], explicit_bounds=[1, 2, float("inf")])))
    assert (only(target).bounds, only(target).counts) == ((1.0, 2.0), [1, 2, 3])


def test_temporality_that_prometheus_has_not_is_dropped() -> None:
    """Deltas that may fall, and sums and histograms of no temporality, are dropped with a reason."""
    falling = Metric(name="level")
    falling.sum.aggregation_temporality = DELTA
    falling.sum.data_points.append(point(1))
    unknown = counter(point(1), temporality=0)
    no_histogram = histogram(histogram_point([1, 0, 0, 0]), temporality=0)
    target = store()
    assert put(target, falling, unknown, no_histogram) == {"temporality": 3}


def test_summary_out_of_range_is_dropped() -> None:
    """A summary with an impossible quantile is dropped."""
    summary = Metric(name="legacy")
    summary.summary.data_points.append(
        SummaryDataPoint(quantile_values=[SummaryDataPoint.ValueAtQuantile(quantile=1.5)])
    )
    assert put(store(), summary) == {"invalid": 1}


def test_metric_without_data_is_passed_over() -> None:
    """A metric that holds nothing changes nothing."""
    target = store()
    assert not put(target, Metric(name="empty"), gauge(name="no.points"))
    assert target.families == {}


def test_series_that_its_sender_ends_is_gone() -> None:
    """A point that is flagged "no recorded value" removes its series at once, and others of the request stay."""
    target = store()
    put(target, gauge(point(1, labels={"a": "x"}), point(2, labels={"a": "y"})))
    put(target, gauge(point(0, labels={"a": "x"}, flags=NO_VALUE)))
    assert only(target).value == 2
    put(target, gauge(point(0, labels={"a": "y"}, flags=NO_VALUE), point(3, labels={"a": "z"})))
    assert only(target).value == 3
    assert target.counters() == {"samples": 1}


def test_series_expire() -> None:
    """A series that is not updated in time goes, and its family's names are free again."""
    target = store(expiration_seconds=60.0)
    put(target, gauge(point(1, labels={"a": "x"}), point(1, labels={"a": "y"})), now=0.0)
    put(target, gauge(point(2, labels={"a": "y"})), now=50.0)
    target.expire(now=61.0)
    assert only(target).value == 2
    target.expire(now=111.0)
    assert target.families == {}
    assert target.counters()["samples"] == 0
    assert not put(target, counter(point(1), name="ml.drift.psi.ratio"), now=112.0)


def test_series_are_bounded_and_what_is_over_is_counted() -> None:
    """Beyond the limit new series are dropped, known ones live on, and room that expiry makes is used."""
    target = store(max_series=10, expiration_seconds=60.0)
    points = [point(1, labels={"n": number}) for number in range(12)]
    assert put(target, gauge(*points), now=0.0) == {"series_limit": 2}
    assert not put(target, gauge(*points[:5]), now=30.0)
    assert put(target, gauge(point(1, labels={"n": 11})), now=30.0) == {"series_limit": 1}
    assert not put(target, gauge(point(1, labels={"n": 11})), now=70.0)
    assert target.counters() == {"samples": 6, "dropped_series_limit": 3}


def test_a_histogram_counts_with_all_its_samples() -> None:
    """The limit is one of samples: four buckets, count and sum are six."""
    target = store()
    put(target, histogram(histogram_point([1, 2, 3, 4])))
    assert target.counters() == {"samples": 6}


def test_types_that_conflict_are_dropped() -> None:
    """A second metric of the same name and another type, or with a name that the first takes, is dropped."""
    target = store()
    assert not put(target, histogram(histogram_point([1, 0, 0, 0])))
    assert put(target, gauge(point(1), name="ml.operation.duration", unit="s")) == {"type_conflict": 1}
    assert put(target, gauge(point(1), name="ml.operation.duration.seconds.count", unit="")) == {"name_conflict": 1}
    assert put(target, gauge(point(1), name="***")) == {"name": 1}
    assert list(target.families) == ["ml_operation_duration_seconds"]


def test_explicit_and_exponential_points_of_one_series_do_not_mix() -> None:
    """Points that change their form are dropped instead of read wrongly."""
    target = store()
    explicit = histogram(histogram_point([1, 0, 0, 0], attributes=[]))
    sparse = exponential(ExponentialHistogramDataPoint(time_unix_nano=END_NS, count=1))
    sparse.name, sparse.unit = explicit.name, explicit.unit
    put(target, explicit)
    assert put(target, sparse) == {"invalid": 1}


def test_identity_of_the_resource_becomes_job_and_instance() -> None:
    """Namespace and name make the job, the instance id the instance; the rest is target_info."""
    target = store()
    target.update(metrics(gauge(point(1))), 0.0)
    [family] = target.families.values()
    assert list(family.series) == ['job="eu/shop",instance="shop-1"']
    assert {key: found.labels for key, found in target.targets.items()} == {
        ("eu/shop", "shop-1"): 'host_name="node-7",job="eu/shop",instance="shop-1"'
    }


def test_labels_by_settings() -> None:
    """Resource attributes, scope and constants are labels where that is set."""
    target = store(resource_labels=True, scope_labels=True, const_labels={"site": "a", "host.name": "b"})
    target.update(metrics(gauge(point(1, labels={"job": "mine", "k": True}))), 0.0)
    [family] = target.families.values()
    [labels] = family.series
    assert set(labels.split(",")) == {
        'k="true"',
        'site="a"',
        'host_name="node-7"',
        'service_name="shop"',
        'service_namespace="eu"',
        'service_instance_id="shop-1"',
        'job="eu/shop"',
        'instance="shop-1"',
        'otel_scope_name="mlspan"',
        'otel_scope_version="0.1.0"',
        'otel_scope_deployment="blue"',
    }


def test_targets_expire() -> None:
    """The information on a target goes with its series."""
    target = store(expiration_seconds=60.0)
    target.update(metrics(), 0.0)
    target.expire(61.0)
    assert target.targets == {}
    assert target.families == {}


def test_exemplars_are_kept_until_newer_ones_come() -> None:
    """A bucket keeps its last exemplar, since scrapes come less often than points."""
    target = store()
    put(target, histogram(histogram_point([1, 1, 0, 0], 10 * SECOND, exemplars=[exemplar(0.001), exemplar(0.05)])))
    put(target, histogram(histogram_point([1, 2, 0, 0], 20 * SECOND, exemplars=[exemplar(0.07)])))
    series = only(target)
    assert set(series.exemplars) == {0, 1}
    assert "} 0.07 " in series.exemplars[1]


def test_only_counters_and_histograms_have_exemplars() -> None:
    """A gauge's exemplar is dropped: OpenMetrics has none there."""
    target = store()
    put(target, gauge(point(1, exemplars=[exemplar(1.0)])))
    series = only(target)
    assert isinstance(series, Number)
    assert series.exemplar == ""


def exponential_series(*points: ExponentialHistogramDataPoint, temporality: Any = CUMULATIVE) -> ExponentialHistogram:
    """Return the series after `points`."""
    target = store()
    for item in points:
        assert not put(target, exponential(item, temporality=temporality))
    series: ExponentialHistogram = only(target)
    return series


def exponential_point(scale: int, offset: int, counts: list[int], time: int = 10, **more: Any) -> Any:
    """Return a point with positive buckets."""
    buckets = ExponentialHistogramDataPoint.Buckets(offset=offset, bucket_counts=counts)
    total = sum(counts) + more.get("zero_count", 0) + sum(more["negative"].bucket_counts if "negative" in more else ())
    return ExponentialHistogramDataPoint(
        time_unix_nano=time * SECOND, scale=scale, positive=buckets, count=total, sum=float(total), **more
    )


def test_exponential_buckets_merge_exactly() -> None:
    """Every observation is below the bound of its explicit bucket and above the one before."""
    series = exponential_series(exponential_point(3, 0, [1] * 16))
    # Scale 3 has 8 buckets per doubling: 16 of them cover (1, 4], which at scale 1 is 4 buckets of 4.
    assert series.bounds == pytest.approx((2**0.5, 2.0, 2**1.5, 4.0))
    assert series.counts == [4, 4, 4, 4, 0]
    assert series.count == 16


def test_exponential_deltas_add_up_over_changing_scales() -> None:
    """Deltas of different scales add up at the coarser one; bounds that were shown stay."""
    series = exponential_series(
        exponential_point(5, 64, [2], 10),
        exponential_point(0, 0, [3], 20),
        exponential_point(0, 3, [1], 30),
        temporality=DELTA,
    )
    assert series.scale == 0
    assert series.bounds == (2.0, 4.0, 8.0, 16.0)
    assert series.counts == [3, 0, 2, 1, 0]  # 2 ** (64 / 32) = 4 is the lower bound of the first point's bucket
    assert (series.count, series.sum) == (6, 6.0)


def test_exponential_bounds_stay_when_the_data_moves() -> None:
    """A cumulative point with fewer buckets keeps the bounds that a scrape has seen."""
    series = exponential_series(exponential_point(0, 0, [1, 1, 1], 10), exponential_point(0, 0, [2], 20))
    assert series.bounds == (2.0, 4.0, 8.0)
    assert series.counts == [2, 0, 0, 0]


def test_exponential_zero_and_negative_buckets() -> None:
    """Negative observations come first, then those around zero, then the positive ones."""
    negative = ExponentialHistogramDataPoint.Buckets(offset=0, bucket_counts=[1, 2])
    series = exponential_series(exponential_point(0, 0, [5], zero_count=4, zero_threshold=0.5, negative=negative))
    assert series.bounds == (-2.0, -1.0, 0.5, 2.0)
    assert series.counts == [2, 1, 4, 5, 0]


def test_exponential_buckets_are_bounded() -> None:
    """However wide the data, there are no more than 160 buckets, and no observation is lost."""
    series = exponential_series(
        exponential_point(20, 2**29, [1], 10), exponential_point(20, -(2**29), [1], 20), temporality=DELTA
    )
    assert len(series.bounds) <= MAX_BUCKETS
    assert series.count == 2
    huge = exponential_series(exponential_point(-10, 5, [7]))
    assert (huge.bounds, huge.counts) == ((), [7])


def test_every_type_is_stored() -> None:
    """One of every type becomes a family each, and nothing is dropped."""
    target = store()
    assert not target.update(metrics(*every_metric()), 0.0)
    assert {name: family.kind for name, family in target.families.items()} == {
        "ml_prediction_count": "counter",
        "ml_drift_psi_ratio": "gauge",
        "ml_operation_duration_seconds": "histogram",
        "queue_wait_milliseconds": "histogram",
        "legacy_bytes": "summary",
        "queue_size": "gauge",
    }
