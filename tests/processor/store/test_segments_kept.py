"""Predictions that wait for their labels keep their segments across a restart and a kill."""

from pathlib import Path
from typing import Any

import numpy as np

from mlspan_processor.labels import Label
from mlspan_processor.model_spans import ModelSpans, prediction_id, put
from tests.processor.helpers import Rig
from tests.processor.store.kept import as_killed, kept, save

CUT = {"resource": ["cloud.region"]}


def sent(rig: Rig, spans: ModelSpans, region: str, seed: int) -> list[str]:
    """A hundred rows from a region; the ids of their predictions."""
    rows = np.random.default_rng(seed).normal(0, 1, (100, 2)).astype(np.float32)
    span = spans.add(rows, np.ones(100, int), end=rig.clock.now)
    put(spans.request.resource_spans[0].resource, "cloud.region", region)
    rig.send(spans.chunk())
    return [prediction_id(span, i) for i in range(100)]


def segments(rig: Rig) -> dict[str, float]:
    """Accuracy by region."""
    rig.connector.flush()
    found: list[dict[str, Any]] = rig.connector.report("fraud")["judged"]["segments"]
    return {one["value"]: one["figures"]["accuracy"]["value"] for one in found if one["segment"] == "cloud.region"}


def test_segments_of_waiting_rows_survive(tmp_path: Path) -> None:
    """Labels that come after a kill count for the regions of their predictions, and a new region is another one."""
    spans = ModelSpans()
    with kept(tmp_path, segments=CUT) as rig:
        ids = {region: sent(rig, spans, region, seed) for seed, region in enumerate(("eu", "us"))}
        assert save(rig)
        left = as_killed(tmp_path, tmp_path / "killed")
    with kept(left, segments=CUT) as rig:
        ids["asia"] = sent(rig, spans, "asia", 9)
        answers = {"eu": "yes", "us": "no", "asia": "yes"}
        rig.connector.submit_labels([Label(one, answers[region]) for region, mine in ids.items() for one in mine])
        assert segments(rig) == {"eu": 1.0, "us": 0.0, "asia": 1.0}


def test_segments_that_are_cut_by_otherwise_now(tmp_path: Path) -> None:
    """Columns are found by their name: another first segment changes nothing, one that is new has no value."""
    spans = ModelSpans()
    with kept(tmp_path, segments=CUT) as rig:
        ids = sent(rig, spans, "eu", 0)
    with kept(tmp_path, segments={"resource": ["host.name", "cloud.region"]}) as rig:
        rig.connector.submit_labels([Label(one, "yes") for one in ids])
        assert segments(rig) == {"eu": 1.0}
    with kept(tmp_path) as rig:
        assert rig.connector.status()["labels"]["pending_predictions"] == 100
