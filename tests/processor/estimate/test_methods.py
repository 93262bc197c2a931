"""Each method on models whose truth is known."""

import numpy as np
import pytest

from mlspan_processor.estimate import METHODS
from mlspan_processor.estimate.base import Rows, rows_of, usable
from mlspan_processor.estimate.blend import Blend
from mlspan_processor.estimate.cbpe import CBPE
from mlspan_processor.estimate.prior import moved, ratio_of, shares
from mlspan_processor.estimate.refit import Refit
from mlspan_processor.estimate.weighted import density_ratio, recalibrated
from mlspan_processor.sample import Sample
from tests.processor.estimate.worlds import binary, chance, multiclass


def _parts(sample: Sample) -> tuple[Rows, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return rows_of(sample, usable(sample)[0]), sample.labels.astype(np.int64)


@pytest.mark.parametrize("n", [400, 6000])
def test_cbpe_is_calibrated_to_the_reference(n: int) -> None:
    """Scores that overstate come out as the share of labels there, with few rows and with many."""
    rows, labels = _parts(binary(n, 1))
    p = CBPE.fit(rows, labels, seed=0).probabilities(_parts(binary(20_000, 2))[0])[:, 1]
    new, truth = _parts(binary(20_000, 2))
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        part = (new.scores[:, 1] >= low) & (new.scores[:, 1] < high)
        assert abs(p[part].mean() - truth[part].mean()) < (0.06 if n < 1000 else 0.03)


@pytest.mark.parametrize("name", ["cbpe", "linear", "refit"])
@pytest.mark.parametrize("world", [binary, multiclass])
def test_probabilities_sum_to_one_and_repeat(name: str, world: object) -> None:
    """Every method gives distributions, the same ones under one seed."""
    rows, labels = _parts(binary(300, 1) if world is binary else multiclass(300, 1))
    first, second = (METHODS[name].fit(rows, labels, seed=3).probabilities(rows) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first.sum(axis=1), 1.0)
    assert (first >= 0).all()


def test_refit_knows_what_the_model_does_not() -> None:
    """Its probabilities are nearer to the truth than calibrated scores where a feature was never used."""
    rows, labels = _parts(binary(4000, 1))
    window = binary(4000, 2, shift=1.0)
    new, truth = _parts(window)[0], chance(window.values())
    error = {
        kind.__name__: np.abs(kind.fit(rows, labels, seed=0).probabilities(new)[:, 1] - truth).mean()
        for kind in (CBPE, Refit)
    }
    assert error["Refit"] < 0.5 * error["CBPE"]


def test_blend_prefers_the_better_part_and_matches_the_confusion() -> None:
    """Exponents go to the probabilities that are right; expected counts by predicted class are those of the labels."""
    sample = binary(4000, 1)
    rows, labels = _parts(sample)
    p = chance(sample.values())
    noise = np.random.default_rng(0).random(len(p))
    good, bad = np.column_stack([1 - p, p]), np.column_stack([1 - noise, noise])
    blend = Blend.fit([bad, good], rows, labels, towards=(1.0, 0.0))
    assert blend.exponents[0] < 0.1 < 0.8 < blend.exponents[1]
    fitted = blend.of([bad, good], rows)[:, 1]
    for said in (0, 1):
        part = rows.predictions == said
        assert fitted[part].mean() == pytest.approx(labels[part].mean(), abs=0.01)


def test_density_ratio_is_flat_without_a_shift_and_follows_one() -> None:
    """No shift: separation near 0.5, few rows lost; a shift: weights carry the reference's mean to the window's."""
    reference = _parts(binary(4000, 1))[0]
    same = density_ratio(reference, _parts(binary(3000, 2))[0], seed=0)
    assert abs(same.separation - 0.5) < 0.04
    assert same.effective > 0.7 * len(reference)
    window = _parts(binary(3000, 3, shift=1.0))[0]
    moved_on = density_ratio(reference, window, seed=0)
    assert moved_on.separation > 0.7
    assert np.average(reference.features[:, 1], weights=moved_on.weights) == pytest.approx(1.0, abs=0.25)


def test_weighted_recalibration_corrects_scores_where_the_window_is() -> None:
    """Calibrated scores are too low after the shift; recalibrated to the window they are nearly right."""
    rows, labels = _parts(binary(6000, 1))
    window = binary(3000, 2, shift=0.8)
    new, truth = _parts(window)[0], chance(window.values()).mean()
    cbpe = CBPE.fit(rows, labels, seed=0)
    p, q = cbpe.probabilities(rows), cbpe.probabilities(new)
    fitted = recalibrated(p, rows, labels, density_ratio(rows, new, seed=0))
    assert fitted is not None
    assert abs(fitted.of([q], new)[:, 1].mean() - truth) < 0.4 * abs(q[:, 1].mean() - truth)


def test_weighted_stands_back_without_overlap() -> None:
    """A window that lies elsewhere is not recalibrated."""
    rows, labels = _parts(binary(2000, 1))
    ratio = density_ratio(rows, _parts(binary(2000, 2, shift=8.0))[0], seed=0)
    assert ratio.outside > 0.8
    assert recalibrated(rows.scores, rows, labels, ratio) is None


def _of_share(n: int, seed: int, share: float) -> Sample:
    """Rows of binary() of which this share are of the last class."""
    pool = binary(20 * n, seed)
    rng = np.random.default_rng(seed)
    hits, others = np.flatnonzero(pool.labels == 1), np.flatnonzero(pool.labels == 0)
    count = round(share * n)
    return pool.take(rng.permutation(np.r_[rng.choice(hits, count), rng.choice(others, n - count)]))


def test_prior_finds_the_new_share_and_only_under_label_shift() -> None:
    """A changed share of classes is recognised and estimated; a covariate shift, and no shift, are not taken for it."""
    rows, labels = _parts(binary(6000, 1))
    window = _of_share(3000, 2, 0.2)
    new = _parts(window)[0]
    p = chance(window.values())
    both = np.column_stack([1 - p, p])
    before = np.bincount(labels) / len(labels)
    assert shares(both, new.weights, before)[1] == pytest.approx(0.2, abs=0.03)
    ratio, explains = ratio_of(rows, labels, new, both)
    assert explains
    assert moved(both, ratio)[:, 1].mean() == pytest.approx(0.2, abs=0.03)
    for other in (binary(3000, 3, shift=0.7), binary(3000, 4)):
        p = chance(other.values())
        assert not ratio_of(rows, labels, _parts(other)[0], np.column_stack([1 - p, p]))[1]
