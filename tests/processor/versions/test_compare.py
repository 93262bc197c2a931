"""Two versions compared: intervals that hold, verdicts, pairs, what cannot be compared."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mlspan_processor.quality.names import BETTER
from mlspan_processor.quality.realised import quality_of, realised
from mlspan_processor.sample import Sample
from mlspan_processor.versions import ComparedMetric, compare
from tests.processor.quality.samples import MAKERS, binary, made, multiclass, multilabel, regression

REPEATS = 100
MISSES = int(stats.binom.ppf(0.999, REPEATS, 0.05))


def noisier(sample: Sample, rng: np.random.Generator, size: float = 0.8) -> Sample:
    """The answers of a worse version on the same rows."""
    if sample.scores is None:
        return replace(sample, predictions=sample.predictions + rng.normal(0, size, len(sample)))
    logits = np.log(sample.scores) - np.log1p(-sample.scores)
    scores = 1 / (1 + np.exp(-(logits + rng.normal(0, size, logits.shape))))
    if sample.task == "multiclass":
        scores /= scores.sum(axis=1, keepdims=True)
        return replace(sample, scores=scores, predictions=scores.argmax(axis=1).astype(np.float64))
    said = (scores > 0.4).astype(np.float64)
    return replace(sample, scores=scores, predictions=said[:, 0] if sample.task == "binary" else said)


def row(found: tuple[ComparedMetric, ...], metric: str) -> ComparedMetric:
    """One metric."""
    return next(one for one in found if one.metric == metric)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("maker", [binary, regression])
def test_intervals_cover_the_difference(maker: Callable[..., Sample], paired: bool) -> None:
    """Of 100 comparisons about 95 % have the true difference in the interval, in pairs as well."""
    rng = np.random.default_rng(5)
    large = maker(rng, 100_000)
    one, other = realised(large), realised(noisier(large, rng))
    truth = {name: (other[name].value or 0.0) - (figure.value or 0.0) for name, figure in one.items()}
    missed = dict.fromkeys(truth, 0)
    for _ in range(REPEATS):
        a = maker(rng, 400)
        b = noisier(a if paired else maker(rng, 400), rng)
        for found in compare(a, b, paired=paired).rows:
            assert found.low is not None
            assert found.high is not None
            missed[found.metric] += not found.low - 1e-9 <= truth[found.metric] <= found.high + 1e-9
    # Where both are the same rows, the bins of the calibration error are not.
    missed.pop("ece", None)
    assert max(missed.values()) <= MISSES, missed


@pytest.mark.parametrize("task", MAKERS)
def test_pairs_are_sharper(task: str) -> None:
    """On the same rows with similar answers the interval is narrower than on separate rows."""
    rng = np.random.default_rng(0)
    a = MAKERS[task](rng, 1000)
    b = noisier(a, rng, 0.2)
    apart, together = compare(a, b), compare(a, b, paired=True)
    assert (apart.paired, together.paired) == (False, True)
    narrower = 0
    for one, other in zip(apart.rows, together.rows, strict=True):
        assert one.difference == pytest.approx(other.difference)
        assert None not in (one.low, one.high, other.low, other.high)
        narrower += (other.high or 0) - (other.low or 0) < 0.8 * ((one.high or 0) - (one.low or 0))
    assert narrower >= len(apart.rows) - 2


def test_paired_accuracy_agrees_with_mcnemar() -> None:
    """Its interval leaves 0 out where McNemar's test rejects, but for borderline cases."""
    rng = np.random.default_rng(0)
    agree = 0
    for _ in range(60):
        a = binary(rng, 300)
        b = noisier(a, rng, 0.9)
        right = [one.predictions == one.labels for one in (a, b)]
        only = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        z = abs(only[0] - only[1]) / np.sqrt(max(1, sum(only)))
        found = row(compare(a, b, paired=True).rows, "accuracy")
        agree += abs(z - 1.96) < 0.15 or (z > 1.96) == (not (found.low or 0) <= 0 <= (found.high or 0))
    assert agree >= 58


def test_verdicts() -> None:
    """Better, worse, equivalent within the margin, and undecidable with how many labels would tell."""
    rng = np.random.default_rng(0)
    good, bad = binary(rng, 4000), noisier(binary(rng, 4000), rng, 3.0)
    assert compare(bad, good).verdict == "better"
    found = compare(good, bad)
    assert found.verdict == "worse"
    assert found.reason.startswith("accuracy: worse by 0.")
    assert found.primary == ("accuracy",)
    assert found.labels == (4000, 4000)
    same = compare(good, binary(rng, 4000), margin=0.05)
    assert same.verdict == "equivalent"
    few = compare(binary(rng, 200), binary(rng, 200), margin=0.01)
    assert few.verdict == "undecidable"
    assert "labels of each would tell" in few.reason
    assert compare(good, bad, primary=("recall", "ece", "nonsense")).primary == ("recall", "ece")
    assert compare(good, bad, margin={"accuracy": 0.9}).verdict == "equivalent"


def test_lower_is_better_for_losses() -> None:
    """Errors and losses that fall are a gain; a bias is better nearer 0."""
    rng = np.random.default_rng(0)
    good = regression(rng, 3000)
    bad = noisier(good, rng, 2.0)
    rows = compare(good, bad, paired=True).rows
    for name in ("mae", "mse", "rmse", "median_ae"):
        one = row(rows, name)
        assert (one.verdict, (one.low or 0) > 0) == ("worse", True)
    assert row(rows, "r2").verdict == "worse"
    shifted = replace(good, predictions=good.predictions + 0.5)
    assert row(compare(good, shifted).rows, "bias").verdict == "worse"
    other_side = replace(good, predictions=good.predictions - 0.5)
    assert "not known which way" in row(compare(good, other_side).rows, "bias").reason


def test_a_margin_of_errors_is_relative_by_default() -> None:
    """The verdict on a mean absolute error does not depend on the label's unit."""
    rng = np.random.default_rng(0)
    a, b = regression(rng, 2000), regression(rng, 2000)
    scaled = [replace(one, labels=one.labels * 1e6, predictions=one.predictions * 1e6) for one in (a, b)]
    assert [one.verdict for one in compare(a, b).rows] == [one.verdict for one in compare(*scaled).rows]


@pytest.mark.parametrize("maker", [binary, multiclass, multilabel, regression])
def test_sums_compare_as_rows_do(maker: Callable[..., Sample]) -> None:
    """The same metrics and differences, within what histograms blur; every metric has a direction."""
    rng = np.random.default_rng(0)
    a, b = maker(rng, 800), maker(rng, 800)
    rows, sums = compare(a, b).rows, compare(quality_of(a), quality_of(b)).rows
    for one, other in zip(rows, sums, strict=True):
        assert one.metric == other.metric
        assert one.difference == pytest.approx(other.difference, abs=0.02)
        assert one.metric in BETTER


def test_undecidable() -> None:
    """Few labels, one class, no scores: the reason says whose."""
    rng = np.random.default_rng(0)
    a = binary(rng, 500)
    few = compare(a, binary(rng, 20))
    assert few.verdict == "undecidable"
    assert few.reason == "accuracy: undecidable, because one has only 20 labelled rows"
    one_class = compare(a, replace(a, labels=np.zeros(500)))
    assert row(one_class.rows, "roc_auc").reason == (
        "undecidable, because the challenger has no value: labels of one class only"
    )
    empty = compare(a, a.take(slice(0, 0)))
    assert "challenger has no value: no labelled predictions" in empty.reason


def test_pairs_without_an_answer_are_left_out() -> None:
    """Rows that either version has no answer for, or no label, are not compared."""
    a = binary(np.random.default_rng(0), 200)
    said, labels = a.predictions.copy(), a.labels.copy()
    said[:20], labels[-30:] = np.nan, np.nan
    assert compare(replace(a, predictions=said), replace(a, labels=labels), paired=True).labels == (150, 150)


def test_mistakes_are_told() -> None:
    """Other tasks, other lengths, sums as pairs."""
    rng = np.random.default_rng(0)
    a = binary(rng, 100)
    with pytest.raises(ValueError, match='"binary" and b is "regression"'):
        compare(a, regression(rng, 100))
    with pytest.raises(ValueError, match="a has 100, b has 99"):
        compare(a, a.take(slice(0, 99)), paired=True)
    with pytest.raises(ValueError, match="only samples can be paired"):
        compare(quality_of(a), quality_of(a), paired=True)
    with pytest.raises(ValueError, match="two samples, or sums of the same kind"):
        compare(a, quality_of(a))
    assert compare(made("binary", [], []), made("binary", [], [])).verdict == "undecidable"
