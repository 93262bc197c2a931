"""Expected figures: those of scikit-learn where probabilities are labels, and right on average where they are not."""

import numpy as np
import pytest
from sklearn import metrics

from mlspan_processor.estimate.base import rows_of, usable
from mlspan_processor.estimate.expected import METRICS, Figures
from tests.processor.estimate.worlds import binary, chance, multiclass


def test_labels_give_scikit_learns_figures_for_two_classes() -> None:
    """Accuracy, precision, recall, F1, AUROC with ties, log loss and Brier score are exact."""
    window = binary(400, 1)
    assert window.scores is not None
    rows = rows_of(window, usable(window)[0])
    scores = np.round(rows.scores, 1)
    rows = type(rows)(rows.features, rows.categorical, scores, rows.predictions, rows.weights)
    y, said, p = window.labels, window.predictions, scores[:, 1]
    expected = [
        metrics.accuracy_score(y, said),
        metrics.precision_score(y, said),
        metrics.recall_score(y, said),
        metrics.f1_score(y, said),
        metrics.roc_auc_score(y, p),
        metrics.log_loss(y, p.astype(np.float32)),
        metrics.brier_score_loss(y, p),
    ]
    np.testing.assert_allclose(Figures(rows).of_labels(y.astype(np.int64)), expected, rtol=1e-5)


def test_labels_give_scikit_learns_figures_for_three_classes() -> None:
    """Averages are macro, AUROC is one-versus-rest."""
    window = multiclass(500, 2)
    rows = rows_of(window, usable(window)[0])
    y, said = window.labels, window.predictions
    figures = dict(zip(METRICS, Figures(rows).of_labels(y.astype(np.int64)), strict=True))
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(y, said))
    assert figures["f1"] == pytest.approx(metrics.f1_score(y, said, average="macro"))
    assert figures["precision"] == pytest.approx(metrics.precision_score(y, said, average="macro"))
    assert figures["roc_auc"] == pytest.approx(metrics.roc_auc_score(y, rows.scores, multi_class="ovr"))
    assert figures["log_loss"] == pytest.approx(metrics.log_loss(y, rows.scores), rel=1e-5)


def test_true_probabilities_give_the_mean_of_realised_figures() -> None:
    """Over many draws of labels the realised figures average to the expected ones."""
    window = binary(2000, 3)
    rows = rows_of(window, usable(window)[0])
    p = chance(window.values())
    both = np.column_stack([1 - p, p])
    drawn = Figures(rows).draws(both, 0, 400)
    gap = np.abs(Figures(rows).of(both) - drawn.mean(axis=0)) / (drawn.std(axis=0) / 20)
    assert (gap < 4).all()
