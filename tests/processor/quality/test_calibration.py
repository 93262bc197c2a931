"""Reliability bins against scikit-learn, and an expected calibration error without the noise of few rows."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from mlspan_processor.quality.calibration import Calibration
from mlspan_processor.quality.realised import quality_of
from tests.processor.quality.samples import binary, multiclass


def test_bins_are_scikit_learns() -> None:
    """Share and mean confidence by bin; each share lies in its band."""
    sample = binary(np.random.default_rng(0), 3000)
    assert sample.scores is not None
    shares, confidence = calibration_curve(sample.labels, sample.scores[:, 0], n_bins=15)
    bins = quality_of(sample).reliability()
    assert [one.share for one in bins] == pytest.approx(shares)
    assert [one.confidence for one in bins] == pytest.approx(confidence)
    assert sum(one.rows for one in bins) == 3000
    assert all(one.low <= one.share <= one.high and one.start <= one.confidence <= one.end for one in bins)


def test_plain_error_is_the_mean_gap() -> None:
    """Over the rows, as Guo et al. define it; of the largest probability for several classes."""
    sample = multiclass(np.random.default_rng(0), 2000)
    assert sample.scores is not None
    top, right = sample.scores.max(axis=1), sample.scores.argmax(axis=1) == sample.labels
    place = np.minimum((top * 15).astype(int), 14)
    expected = sum(abs(float((right[place == b] - top[place == b]).sum())) for b in range(15)) / 2000
    assert quality_of(sample).calibration.plain() == pytest.approx(expected)


@pytest.mark.parametrize("sure", [1.0, 2.0])
def test_debiased_error_is_nearer_the_truth(sure: float) -> None:
    """Of 100 small samples the mean is at most half as far off as the plain one's, and bands reach the truth."""
    rng = np.random.default_rng(0)
    truth = quality_of(binary(rng, 300_000, sure=sure)).calibration.plain()
    qualities = [quality_of(binary(rng, 300, sure=sure)) for _ in range(100)]
    plain = np.mean([one.calibration.plain() for one in qualities])
    debiased = np.mean([one.figures()["ece"].value for one in qualities])
    assert truth is not None
    assert abs(debiased - truth) < abs(plain - truth) / 2
    bands = [one.calibration.interval(one.ratio)(1.96) for one in qualities]
    assert sum(band is not None and band[0] <= truth <= band[1] for band in bands) >= 86


def test_empty_and_certain() -> None:
    """Nothing is no figure; probabilities of 0 and 1 that are right have an error of 0."""
    empty = Calibration()
    assert empty.plain() is None
    assert empty.ece(1.0).reason == "no labelled probabilities"
    assert empty.interval(1.0)(1.96) is None
    assert empty.bins(1.0) == []
    sure = Calibration()
    sure.add(np.array([0.0, 1.0] * 50), np.array([False, True] * 50), np.ones(100))
    assert sure.ece(1.0).value == pytest.approx(0.0, abs=1e-6)
