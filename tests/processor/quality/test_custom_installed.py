"""The user's own metric, from an installed package to the figures of files and of the stream."""

from pathlib import Path

import numpy as np
import pytest

from mlspan_processor import analyze
from tests.processor.analysis.frames import classified
from tests.processor.helpers import Rig, points_of
from tests.processor.test_judge import SETTINGS, Stream, events_of

SOURCE = '''
"""What a wrong answer costs."""

def cost(labels, predictions, scores, weights):
    """The weight of the wrong rows."""
    return float(((labels != predictions) * weights).sum())

def broken(labels, predictions, scores, weights):
    """Fails."""
    raise KeyError("price")
'''


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with two metrics on the path, as an installer leaves it."""
    about = tmp_path / "shop_metrics-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-metrics\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mlspan_metric]\ncost = shop_metrics:cost\nbroken = shop_metrics:broken\n")
    (tmp_path / "shop_metrics.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_in_files() -> None:
    """Every window has it with the reference's value and a band; one that fails has a reason, and the rest stands."""
    rng = np.random.default_rng(0)
    reference, current = classified(rng, 400), classified(rng, 300)
    frames = [one.assign(said=(one["p"] > 0.5).astype(int)).drop(columns="p") for one in (reference, current)]
    analysis = analyze(reference=frames[0], current=frames[1], prediction="said", label="y")
    metrics = analysis.windows[0].metrics
    wrong = int(((current["p"] > 0.5) != current["y"]).sum())
    cost = metrics["custom:cost"]
    assert cost.realised == wrong
    assert cost.realised_low is not None
    assert cost.realised_low < wrong
    assert cost.reference == int(((reference["p"] > 0.5) != reference["y"]).sum())
    assert "realised: undecidable, because \"broken\" raised KeyError: 'price'" in metrics["custom:broken"].reason
    assert metrics["accuracy"].realised is not None


def test_in_the_stream() -> None:
    """It is measured over closed windows of labels, published, and watched by a monitor."""
    watched = {"name": "cost", "metric": "custom:cost", "method": "static", "threshold": {"above": 150}}
    with Rig(**SETTINGS, default_monitors=False, monitors=[watched]) as rig:
        stream = Stream(rig)
        stream.pass_by(4)
        assert events_of(rig.logs.chunks) == []
        stream.pass_by(4, wrong=0.5)
        [_, event] = events_of(rig.logs.chunks)[0]
        points = points_of(rig.metrics.chunks[-1:])
    assert event["ml.incident.subject"] == "custom:cost"
    named = {dict(key[1:])["ml.quality.metric"] for key in points if key[0] == "ml.quality.custom"}
    assert named == {"cost"}
