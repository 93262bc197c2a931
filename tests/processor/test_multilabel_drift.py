"""Drift of a multilabel model's answers in the stream: each output by itself, learnt, kept, judged and told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from mlspan.profile import build_profile, from_json, to_json
from mlspan_processor.model_spans import ModelSpans
from mlspan_processor.records import Chunk
from tests.processor.helpers import Rig, gauge, normal_rows
from tests.processor.store.kept import as_killed, kept, save

NAMES = ("food", "music", "sport")
RATES = np.array([0.5, 0.2, 0.05])
LEARNT = 1000


class Answers:
    """One-row calls whose outputs hold with given rates."""

    def __init__(self, *, as_classes: bool = False, outputs: tuple[str, ...] = NAMES, seed: int = 0) -> None:
        classes = ("0", "1") if as_classes else ()
        self._spans = ModelSpans(classes=classes, task="multilabel", outputs=outputs, seed=seed)
        self._rng = np.random.default_rng(seed)
        self.said = np.empty((0, len(NAMES)), np.int64)

    def chunk(self, n: int, rates: NDArray[np.float64] = RATES, end: int | None = None) -> Chunk:
        """So many rows more."""
        said = (self._rng.random((n, len(rates))) < rates).astype(np.int64)
        self.said = np.concatenate([self.said, said])
        for row, answer in zip(normal_rows(n, int(self._rng.integers(1 << 30))), said, strict=True):
            self._spans.add(row[None], answer, end=end)
        return self._spans.chunk()


def drifts(rig: Rig) -> dict[str, dict[str, Any]]:
    """Of the answers, by name."""
    rows = rig.connector.report("fraud")["drift"]["features"]
    return {row["name"]: row for row in rows if row["kind"] != "input"}


def opened(rig: Rig) -> list[dict[str, Any]]:
    """Incidents that are open."""
    return list(rig.connector.incidents()["open"])


@pytest.mark.parametrize("as_classes", [False, True])
def test_each_output_has_a_drift_of_its_own(as_classes: bool) -> None:
    """Against how often it held in the rows that were learnt from; p-value and distance as scipy's on those counts."""
    answers = Answers(as_classes=as_classes)
    with Rig(reference={"learn_rows": LEARNT}) as rig:
        rig.send(answers.chunk(LEARNT))
        rig.send(answers.chunk(600, np.array([0.5, 0.35, 0.05])))
        found = drifts(rig)
        points = rig.flush()
    assert set(found) == {f"prediction {name}" for name in NAMES}
    before, after = answers.said[:LEARNT], answers.said[LEARNT:]
    for k, name in enumerate(NAMES):
        row = found[f"prediction {name}"]
        table = np.array([np.bincount(part[:, k], minlength=2) for part in (before, after)])
        assert row["p_value"] == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, rel=1e-6)
        p, q = table / table.sum(axis=1, keepdims=True)
        middle = (p + q) / 2
        divergence = (stats.entropy(p, middle, base=2) + stats.entropy(q, middle, base=2)) / 2
        assert row["jensen_shannon"] == pytest.approx(divergence**0.5, rel=1e-6)
        assert row["rows"] == 600
        assert gauge(points, "ml.drift.p_value", ml_feature_name=f"prediction {name}") == pytest.approx(row["p_value"])


def test_an_output_that_holds_more_often_opens_an_incident() -> None:
    """It names the output, its share now and in the reference; before, and for the other outputs, all is quiet."""
    answers = Answers()
    with Rig(reference={"learn_rows": LEARNT}, window={"min_rows": 500}) as rig:

        def pass_by(panes: int, rates: NDArray[np.float64]) -> None:
            for _ in range(panes):
                rig.send(answers.chunk(500, rates, rig.clock.now))
                rig.clock.advance(10)
                rig.flush()

        pass_by(20, RATES)
        assert opened(rig) == []
        pass_by(6, np.array([0.5, 0.2, 0.4]))
        [incident] = opened(rig)
    assert incident["subject"] == "prediction sport drift"
    assert "prediction sport: " in incident["summary"]
    assert "in the reference" in incident["summary"]


def test_what_was_learnt_survives_a_kill(tmp_path: Path) -> None:
    """Rows that were learnt from before the kill count as those after it do; so does the finished reference."""
    answers = Answers()
    first, second, window = (answers.chunk(n) for n in (LEARNT // 2, LEARNT // 2, 300))
    settings = {"reference": {"learn_rows": LEARNT}}
    with kept(tmp_path / "one", **settings) as rig:
        rig.send(first)
        assert save(rig)
        as_killed(tmp_path / "one", tmp_path / "two")
        rig.send(second)
        rig.send(window)
        expected = drifts(rig)
    with kept(tmp_path / "two", **settings) as rig:
        rig.send(second)
        assert save(rig)
        as_killed(tmp_path / "two", tmp_path / "three")
    with kept(tmp_path / "three", **settings) as rig:
        rig.send(window)
        assert drifts(rig) == expected
        assert len(expected) == len(NAMES)


def test_rows_of_other_outputs_are_left_out() -> None:
    """Another process's outputs have no drift against these; features have."""
    with Rig(reference={"learn_rows": LEARNT}) as rig:
        rig.send(Answers().chunk(LEARNT))
        rig.send(Answers(outputs=("a", "b", "c"), seed=1).chunk(200))
        assert [row["rows"] for row in drifts(rig).values()] == [0, 0, 0]
        assert rig.connector.report("fraud")["drift"]["rows"] == 200


def test_a_profile_keeps_its_outputs() -> None:
    """What is written is what is read; a file without them, of before, is read still."""
    rows = normal_rows(50, 0)
    held = (np.random.default_rng(0).random(50) < 0.3).astype(float)
    held[7] = np.nan
    profile = build_profile(rows, ["a", "b"], ["numeric"] * 2, outputs={"food": held}, task="multilabel")
    again = from_json(to_json(profile))
    [output] = again.outputs
    assert (output.name, output.labels) == ("prediction food", ("0", "1"))
    assert output.counts.tolist() == [49 - np.nansum(held), np.nansum(held), 0, 0, 0]
    text = to_json(profile)
    start = text.index('"outputs": [{')
    bare = text[:start] + text[text.index('"score":') :]
    assert from_json(bare).outputs == ()
