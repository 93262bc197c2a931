"""What goes wrong is told, by the alert that is meant for it, and nothing else is."""

import numpy as np
import pandas as pd
import pytest

from mlspan_processor import Analysis, analyze
from mlspan_processor.analysis.result import ALERT_KINDS, AlertKind
from tests.processor.analysis.frames import classified, numbers


def kinds(result: Analysis, window: int = 0) -> list[AlertKind]:
    """The kinds of a window's alerts."""
    return [one.kind for one in result.windows[window].alerts]


def test_concept_shift_is_seen_in_labels_alone() -> None:
    """The truth turns around while features stay: realised performance alerts, critically, and no feature."""
    rng = np.random.default_rng(0)
    reference, current = classified(rng, 2000), classified(rng, 1000, concept=True)
    result = analyze(reference=reference, current=current, probability="p", label="y")
    [alert] = result.windows[0].alerts
    assert (alert.kind, alert.severity) == ("realised", "critical")
    assert "accuracy" in alert.subject
    assert alert.value is not None
    assert alert.reference is not None
    assert alert.effect == pytest.approx(alert.value - alert.reference)
    assert not any(one.drifted for one in result.windows[0].features.values())


def test_covariate_shift_is_seen_without_labels(estimates: None) -> None:
    """Rows move to where the model is unsure: the estimate falls, the predictions and the feature have shifted."""
    rng = np.random.default_rng(1)
    reference = classified(rng, 1500, shift=1.5)
    current = classified(rng, 1000, shift=0.0).drop(columns="y")
    result = analyze(reference=reference, current=current, probability="p", label="y")
    assert kinds(result) == ["estimated", "prediction_drift", "feature_drift"]
    alert = result.windows[0].alerts[-1]
    assert alert.subject == "x0"
    assert "x0 (effect" in alert.message
    metric = result.windows[0].metrics["accuracy"]
    assert metric.realised is None
    assert metric.estimated is not None
    assert metric.low is not None
    assert metric.high is not None
    assert metric.low <= metric.estimated <= metric.high
    assert metric.reason.startswith("realised: ")


def test_missing_values_and_unseen_categories_are_data_quality() -> None:
    """A column that is empty more often, and a category that was never there: one alert names both."""
    rng = np.random.default_rng(2)
    reference, current = classified(rng, 2000), classified(rng, 1000)
    current.loc[:199, "x2"] = np.nan
    current.loc[300:399, "kind"] = "new"
    result = analyze(reference=reference, current=current, probability="p", label="y")
    alert = next(one for one in result.windows[0].alerts if one.kind == "data_quality")
    assert set(alert.subject.split(", ")) == {"x2", "kind"}
    assert "20.0% of x2 is missing" in alert.message
    assert "10.0% of kind is never seen in the reference" in alert.message


def test_many_shifted_features_are_one_alert() -> None:
    """Fifty features that moved are one fact; the largest effect comes first, five are named."""
    rng = np.random.default_rng(3)
    reference, current = numbers(rng, 2000, 50), numbers(rng, 1000, 50)
    current += 0.5
    current["x7"] += 1.0
    result = analyze(reference=reference, current=current)
    [alert] = [one for one in result.windows[0].alerts if one.kind == "feature_drift"]
    assert alert.subject.startswith("x7, ")
    assert alert.message.startswith("50 features have shifted, of 50: x7 (effect ")
    assert alert.message.endswith("and 45 more")
    assert kinds(result) == ["feature_drift"]


def test_numbers_outside_the_range_alone_can_alert() -> None:
    """A few values beyond all that the reference had are told, with their share, where the rest has not moved."""
    rng = np.random.default_rng(9)
    reference, current = numbers(rng, 2000, 2), numbers(rng, 1000, 2)
    current.loc[::50, "x1"] = 50.0
    [alert] = analyze(reference=reference, current=current).windows[0].alerts
    assert (alert.kind, alert.subject, alert.reference) == ("feature_drift", "x1", 0.0)
    assert alert.value == pytest.approx(0.02, abs=0.002)
    assert "% are outside the reference's -" in alert.message


def test_a_segment_alone_can_alert() -> None:
    """Performance falls in one group of five: told with the group's name."""
    rng = np.random.default_rng(4)
    reference, current = classified(rng, 5000), classified(rng, 3000)
    for frame in (reference, current):
        frame["place"] = rng.choice([f"p{i}" for i in range(12)], len(frame))
    hit = current["place"] == "p3"
    current.loc[hit, "y"] = 1 - (current.loc[hit, "p"] > 0.5).astype(int)
    result = analyze(reference=reference, current=current, probability="p", label="y", segment="place")
    alert = result.windows[0].alerts[0]
    assert alert.kind == "realised"
    assert "place=p3" in alert.message
    groups = result.windows[0].segments["place"]
    assert len(groups) == 12
    assert groups["p3"].metrics["accuracy"].realised == 0.0
    assert groups["p3"].metrics["accuracy"].reference == pytest.approx(0.82, abs=0.06)


def test_alerts_are_ordered_by_importance() -> None:
    """Whatever goes wrong at once, performance comes first and diagnosis last."""
    rng = np.random.default_rng(5)
    reference, current = classified(rng, 3000), classified(rng, 2000, shift=1.0, concept=True)
    current.loc[:500, "x2"] = np.nan
    result = analyze(reference=reference, current=current, probability="p", label="y")
    found = kinds(result)
    assert found == [kind for kind in ALERT_KINDS if kind in found]
    assert found[0] == "realised"
    assert {"prediction_drift", "data_quality", "feature_drift"} <= set(found)


def test_regression_errors_that_grow() -> None:
    """Mean absolute error above the reference by more than 5 % alerts; its effect is in the label's units."""
    rng = np.random.default_rng(6)
    reference, current = numbers(rng, 2000, 3), numbers(rng, 1000, 3)
    for frame, noise in ((reference, 1.0), (current, 1.5)):
        frame["said"] = 3 * frame["x0"]
        frame["truth"] = frame["said"] + rng.normal(0, noise, len(frame))
    result = analyze(reference=reference, current=current, prediction="said", label="truth")
    [alert] = result.windows[0].alerts
    assert (alert.kind, alert.subject) == ("realised", "mae")
    assert alert.effect == pytest.approx(0.4, abs=0.1)


def test_errors_that_grow_where_rows_depend_on_each_other() -> None:
    """Bands that dependence stretches past what tables of Student's t hold still say whether errors have grown."""
    rng = np.random.default_rng(8)
    reference, current = numbers(rng, 3000, 2, correlation=0.8), numbers(rng, 900, 2, correlation=0.8)
    for frame, factor in ((reference, 1.0), (current, 1.1)):
        frame["said"] = frame["x0"]
        frame["y"] = frame["said"] + factor * numbers(rng, len(frame), 1, correlation=0.8)["x0"]
    current.loc[600:, "y"] = current["said"][600:] + 4 * (current["y"] - current["said"])[600:]
    result = analyze(reference=reference, current=current, prediction="said", label="y", every="300rows")
    assert ["realised" in kinds(result, window) for window in range(3)] == [False, False, True]


def test_incidents_join_windows() -> None:
    """Three bad windows in a row are one incident, from the first's start to the last's end; quiet ones none."""
    rng = np.random.default_rng(8)
    reference = classified(rng, 3000)
    parts = [classified(rng, 500, concept=2 <= i < 5) for i in range(10)]
    current = pd.concat(parts, ignore_index=True)
    result = analyze(reference=reference, current=current, probability="p", label="y", every="500rows")
    assert [bool(window.alerts) for window in result.windows] == [2 <= i < 5 for i in range(10)]
    [incident] = result.incidents
    assert (incident.start, incident.end, incident.status) == (1000, 2500, "closed")
    assert incident.severity == "critical"
    assert incident.subjects[0] == "realised"
