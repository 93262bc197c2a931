"""Champion and challenger: what passes, what fails, and what the rows do not tell."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlspan_processor.analysis import AnalysisError
from mlspan_processor.analysis.gate import Gate, compare_versions
from tests.processor.analysis.frames import classified


def said(rng: np.random.Generator, truth: pd.DataFrame, right: float) -> pd.DataFrame:
    """A version's predictions of these cases, right as often as said."""
    hit = rng.random(len(truth)) < right
    return truth.assign(said=np.where(hit, truth["y"], 1 - truth["y"]))


@pytest.fixture
def truth() -> pd.DataFrame:
    """2,000 cases with ids."""
    frame = classified(np.random.default_rng(0), 2000)[["y", "kind"]]
    return frame.assign(id=[f"order {i}" for i in range(len(frame))])


def gate_of(champion: Any, challenger: Any, **options: Any) -> Gate:
    """The comparison of two frames."""
    return compare_versions(champion=champion, challenger=challenger, prediction="said", label="y", **options)


@pytest.mark.parametrize(
    ("right", "outcome", "verdict"),
    [(0.95, "pass", "better"), (0.60, "fail", "worse")],
)
def test_better_passes_and_worse_fails(truth: pd.DataFrame, right: float, outcome: str, verdict: str) -> None:
    """Twenty points in accuracy are beyond doubt, either way."""
    rng = np.random.default_rng(1)
    gate = gate_of(said(rng, truth, 0.8), said(rng, truth, right))
    assert (gate.outcome, gate.metrics["accuracy"].verdict) == (outcome, verdict)
    one = gate.metrics["accuracy"]
    assert one.decides
    assert one.low is not None
    assert one.high is not None
    assert one.difference is not None
    assert one.low < one.difference < one.high
    assert one.difference == pytest.approx(right - 0.8, abs=0.05)
    assert "accuracy" in gate.why


def test_pairs_say_more_than_means(truth: pd.DataFrame) -> None:
    """The same cases by id, in whatever order: a narrower interval than that of separate rows; others are left out."""
    rng = np.random.default_rng(2)
    champion = said(rng, truth, 0.8)
    challenger = champion.copy()
    changed = rng.random(len(truth)) < 0.02
    challenger.loc[changed, "said"] = challenger.loc[changed, "y"]
    shuffled = challenger.sample(frac=1, random_state=0)
    extra = pd.concat([shuffled, shuffled[:50].assign(id=[f"other {i}" for i in range(50)])])
    paired, apart = gate_of(champion, extra, id="id"), gate_of(champion, challenger)
    assert paired.paired
    assert not apart.paired
    assert paired.labels == (2000, 2000)
    assert any("compared case by case on the 2,000 ids" in note for note in paired.notes)
    widths = [one.metrics["accuracy"].high - one.metrics["accuracy"].low for one in (paired, apart)]  # type: ignore[operator]
    assert widths[0] < widths[1] / 2
    assert paired.outcome == "pass"


def test_too_few_rows_are_undecided(truth: pd.DataFrame) -> None:
    """Forty rows of equal versions do not tell; the reason says so."""
    rng = np.random.default_rng(3)
    gate = gate_of(said(rng, truth[:40], 0.8), said(rng, truth[40:80], 0.8), margin=0.01)
    assert gate.outcome == "undecided"
    assert "cannot be told" in gate.why
    assert "undecidable" in gate.metrics["accuracy"].reason


def test_a_margin_allows_a_little_less(truth: pd.DataFrame) -> None:
    """What is worse by two points fails without a margin of ten."""
    rng = np.random.default_rng(4)
    champion, challenger = said(rng, truth, 0.85), said(rng, truth, 0.80)
    assert gate_of(champion, challenger, margin=0.0).outcome == "fail"
    assert gate_of(champion, challenger, margin=0.1).outcome == "pass"


def test_one_file_with_both_versions(truth: pd.DataFrame) -> None:
    """A version column tells them apart; the names are its values."""
    rng = np.random.default_rng(5)
    both = pd.concat([said(rng, truth, 0.6).assign(model=7), said(rng, truth, 0.9).assign(model=8)])
    gate = compare_versions(
        champion="7", challenger="8", data=both, version="model", prediction="said", label="y", id="id", metric=["f1"]
    )
    assert (gate.outcome, gate.paired) == ("pass", True)
    assert [name for name, one in gate.metrics.items() if one.decides] == ["f1"]
    with pytest.raises(AnalysisError, match='"model" has no version "9"'):
        compare_versions(champion="7", challenger="9", data=both, version="model", prediction="said", label="y")


def test_a_label_of_the_case_counts_for_both(truth: pd.DataFrame) -> None:
    """In a shadow deployment only the champion's rows have labels: by id they are the challenger's too."""
    rng = np.random.default_rng(6)
    shadow = said(rng, truth, 0.9).assign(y=np.nan)
    gate = gate_of(said(rng, truth, 0.7), shadow, id="id")
    assert gate.labels == (2000, 2000)
    assert gate.outcome == "pass"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -1.0}, "must be a number that is not negative"),
        ({"margin": float("nan")}, "must be a number that is not negative"),
        ({"margin": float("inf")}, "must be a number that is not negative"),
        ({"metric": ["acuracy"]}, 'no such metric; did you mean "accuracy"'),
        ({"version": "kind"}, "belong together"),
        ({"task": "regression", "probability": "nothing"}, "neither file has this column"),
    ],
)
def test_wrong_options(truth: pd.DataFrame, options: dict[str, Any], message: str) -> None:
    """Each misuse is an error that says what would do."""
    rng = np.random.default_rng(7)
    with pytest.raises(AnalysisError, match=message):
        gate_of(said(rng, truth, 0.8), said(rng, truth, 0.8), **options)


def test_invalid_probabilities_cost_one_version_its_figures() -> None:
    """Over a tenth of one version's: the other keeps its own, and a note says so."""
    frame = classified(np.random.default_rng(5), 2000).assign(version=np.repeat(["7", "8"], 1000))
    frame.loc[1000:1149, "p"] = 100.0
    gate = compare_versions(
        champion="7", challenger="8", data=frame, version="version", label="y", probability="p", metric=["roc_auc"]
    )
    metric = gate.metrics["roc_auc"]
    assert (metric.champion is None, metric.challenger) == (False, None)
    assert "15% of the probabilities of 8 lie outside [0, 1]: none of them is used" in gate.notes
