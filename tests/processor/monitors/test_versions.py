"""A version that is worse than the one before it at the same time is told; versions that are alike are not."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from mlspan_processor.drift.sequence import RUN_LENGTH
from mlspan_processor.model import Model
from mlspan_processor.monitors.settings import Monitor
from mlspan_processor.monitors.versions import VersionWatch, version_findings
from mlspan_processor.monitors.window import Closed
from mlspan_processor.quality.base import Labelled
from mlspan_processor.quality.classification import Classification
from tests.processor.helpers import Rig
from tests.processor.test_judge import SETTINGS, Stream, events_of

ROWS = 300


class Versions:
    """Two versions whose labelled rows of every window are drawn when they are asked for."""

    def __init__(self, right: tuple[float, float], seed: int = 0) -> None:
        self.random, self.right = np.random.default_rng(seed), right
        self.models = [self._model(slot) for slot in (0, 1)]
        self.watch = VersionWatch()

    def look(self, monitor: Monitor) -> Any:
        """One more window: the finding, None or nothing."""
        looks = self.watch.look(self.models[1], self.models, Closed(None, 10, 20))
        return version_findings(monitor, self.models[1], looks).get("accuracy against version 7", "nothing")

    def _model(self, slot: int) -> Model:
        fields = {"name": "fraud", "version": "78"[slot], "slot": slot, "last_seen": 0, "classes": ["no", "yes"]}
        quality = SimpleNamespace(sum=lambda *_: self._sums(slot))
        return cast("Model", SimpleNamespace(**fields, declared=2, quality=quality))

    def _sums(self, slot: int) -> Classification:
        said = self.random.integers(0, 2, ROWS).astype(float)
        labels = np.where(self.random.random(ROWS) < self.right[slot], said, 1 - said)
        sums = Classification(2)
        sums.update(Labelled(labels, said, None, 0, np.ones(ROWS)))
        return sums


MONITOR = Monitor(name="version", metric="version_difference")


def test_a_worse_version_is_found_within_windows() -> None:
    """Eight points less in windows of 300 labels: proved after some of them, with the difference in words."""
    versions = Versions((0.9, 0.82))
    found = [versions.look(MONITOR) for _ in range(12)]
    assert found[0] is None
    told = [one for one in found if one is not None]
    assert told
    assert told[0].certain
    assert told[0].effect < -0.02
    assert "of version 7 at the same time" in told[0].message


def test_versions_that_are_alike_are_quiet() -> None:
    """600 windows of equal versions: no alarm, and evidence that stays far below one."""
    versions = Versions((0.9, 0.9), seed=1)
    assert all(versions.look(MONITOR) is None for _ in range(600))
    assert sum(versions.watch.to_dict().values()) < RUN_LENGTH / 2


def test_evidence_survives_and_starts_anew_after_recovery() -> None:
    """Through JSON; once a window is fine again it must be proved anew."""
    versions = Versions((0.95, 0.7))
    assert [versions.look(MONITOR) is not None for _ in range(3)][-1]
    again = Versions((0.95, 0.95), seed=2)
    again.watch.restore(versions.watch.to_dict())
    assert again.look(MONITOR) is None
    assert again.watch.to_dict() == {"7": 0.0}


def test_too_few_labels_say_nothing() -> None:
    """Without thirty labels of both there is no finding, fine or bad."""
    versions = Versions((0.9, 0.1))
    versions.models[0].quality.sum = lambda *_: Classification(2)  # type: ignore[method-assign]  # a stand-in
    assert versions.look(MONITOR) == "nothing"


def test_in_the_stream() -> None:
    """A canary that errs more opens an incident of its own, which names the version before it."""
    only = [{"name": "version", "metric": "version_difference", "severity": "critical"}]
    with Rig(**SETTINGS, default_monitors=False, monitors=only) as rig:
        old, new = Stream(rig), Stream(rig, version="8", seed=1)
        for _ in range(5):
            old.send()
            new.send(wrong=0.25)
            rig.clock.advance(10)
            rig.connector.flush()
        events = [event for _, event in events_of(rig.logs.chunks)]
    assert [event["ml.incident.status"] for event in events].count("opened") == 1
    assert events[0]["ml.model.version"] == "8"
    assert events[0]["ml.incident.subject"] == "accuracy against version 7"
