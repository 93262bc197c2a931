"""All features together, in the stream: what no feature shows by itself is found, kept and told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlspan_processor import judge
from mlspan_processor.monitors import together
from tests.processor.helpers import Rig, points_of
from tests.processor.test_judge import COLUMNS, SETTINGS, Stream, events_of


class Paired(Stream):
    """Calls whose first two features hang together."""

    def send(self, correlation: float = 0.8, shift: float = 0.0, **others: Any) -> None:  # type: ignore[override]
        """Ten calls of fifty rows, without labels."""
        for _ in range(10):
            rows = self.random.normal(shift, 1, (50, 4))
            rows[:, 1] = correlation * rows[:, 0] + (1 - correlation**2) ** 0.5 * rows[:, 1]
            self.spans.add(rows.astype(np.float32), np.resize([0, 1], 50), end=self.rig.clock.now)
        self.rig.send(self.spans.chunk())


def value(rig: Rig, name: str) -> float | None:
    """The newest value of a gauge of all features together."""
    points = points_of(rig.metrics.chunks[-1:])
    found = [point.as_double for key, point in points.items() if key[0] == f"ml.drift.multivariate.{name}"]
    return found[0] if found else None


def test_a_correlation_that_goes_is_told_and_survives_a_restart(tmp_path: Path) -> None:
    """The margins stay: quiet while the pair does, one incident once it goes; the detector is not learnt anew."""
    rig = Rig(**SETTINGS)
    rig.connector.state_dir = tmp_path
    with rig:
        stream = Paired(rig)
        stream.pass_by(4)
        early = rig.connector.report("fraud")["judged"]["drift"]["multivariate"]
        assert early["reason"].startswith("undecidable, because ")
        assert early["p_value"] is None
        stream.pass_by(4)
        assert value(rig, "drifted") == 0.0
        assert (value(rig, "p_value") or 0) > 0.001
        assert events_of(rig.logs.chunks) == []
    clock, before = rig.clock, stream.random
    rig = Rig(**SETTINGS)
    rig.clock = rig.connector._clock = clock
    rig.connector.state_dir = tmp_path
    with rig:
        stream = Paired(rig, seed=7)
        stream.random = before
        stream.pass_by(5, correlation=0.0)
        [_, event] = events_of(rig.logs.chunks)[0]
        report = rig.connector.report("fraud")["judged"]["drift"]
        assert value(rig, "drifted") == 1.0
        assert (value(rig, "effect") or 0) > 0.3
    assert event["ml.incident.subject"] == "multivariate_drift"
    assert event["ml.incident.severity"] == "info"
    assert event["ml.monitor.names"] == ["multivariate drift"]
    assert event["ml.incident.summary"].endswith("though no feature has drifted by itself")
    assert report["multivariate"]["drifted"]
    assert not any(one["drifted"] for one in report["features"])


def test_what_a_feature_shows_by_itself_is_told_of_the_feature() -> None:
    """A shift of all features is feature drift, and nothing is said of them together."""
    with Rig(**SETTINGS) as rig:
        stream = Paired(rig)
        stream.pass_by(7)
        stream.pass_by(4, shift=1.0)
        last = events_of(rig.logs.chunks)[-1][1]
    assert "multivariate drift" not in last["ml.monitor.names"]
    assert set(last["ml.anomaly.features"]) <= set(COLUMNS)


def test_rows_that_are_learnt_from_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound few rows are forgotten, and enough of them are learnt from at once."""
    monkeypatch.setattr(judge, "LEARNT_BYTES", 1000)
    settings = {**SETTINGS, "reference": {"learn_rows": 5000}}
    for least, fitted in ((10_000, False), (500, True)):
        monkeypatch.setattr(together, "MIN_LEARNT", least)
        with Rig(**settings) as rig:
            stream = Paired(rig)
            stream.pass_by(13)
            [watch] = stream.judge.watches()
            assert watch.together.nbytes == 0
            assert (watch.together.detector is not None) is fitted
