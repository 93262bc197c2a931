"""Quality figures against scikit-learn, and the reasons where there is no figure."""

import numpy as np
import pytest
from sklearn import metrics

from mlspan.payload import SCORE_RAW
from mlspan_processor.quality import Classification, Labelled, Regression, wilson
from mlspan_processor.quality.base import MAX_CLASSES
from tests.processor.quality.batches import classified, cut, regressed


def both(p: np.ndarray) -> np.ndarray:
    """Two columns of probabilities from that of the last class."""
    return np.hstack([1 - p, p]) if p.shape[1] == 1 else p


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classification_is_scikit_learns(classes: int, weighted: bool) -> None:
    """Accuracy, precision, recall, F1, log loss and Brier score equal scikit-learn's on the same weighted rows."""
    batch = classified(2000, classes, weighted=weighted)
    quality = Classification(classes)
    quality.update(batch)
    figures = {name: figure.value for name, figure in quality.figures().items()}
    y, said, w = batch.labels, batch.predictions, batch.weights
    average = "binary" if classes == 2 else "macro"
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(y, said, sample_weight=w))
    for name in ("precision", "recall", "f1"):
        expected = getattr(metrics, f"{name}_score")(y, said, average=average, sample_weight=w)
        assert figures[name] == pytest.approx(expected)
    assert batch.scores is not None
    p = both(batch.scores.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    assert figures["log_loss"] == pytest.approx(metrics.log_loss(y, p, sample_weight=w), rel=1e-6)
    if classes == 2:
        brier = metrics.brier_score_loss(y, p[:, 1], sample_weight=w)
    else:
        brier = np.average(((p - np.eye(classes)[y.astype(int)]) ** 2).sum(axis=1), weights=w) / 2
    assert figures["brier"] == pytest.approx(brier, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_auroc_is_within_its_bound(classes: int, seed: int) -> None:
    """AUROC differs from scikit-learn's by no more than the bound it states, and the bound is small."""
    batch = classified(600, classes, seed, weighted=True)
    quality = Classification(classes)
    quality.update(batch)
    figure = quality.figures()["roc_auc"]
    assert batch.scores is not None
    if classes == 2:
        exact = metrics.roc_auc_score(batch.labels, batch.scores[:, 0], sample_weight=batch.weights)
    else:
        exact = np.mean(
            [
                metrics.roc_auc_score(batch.labels == k, batch.scores[:, k], sample_weight=batch.weights)
                for k in range(classes)
            ]
        )
    assert figure.value is not None
    assert abs(figure.value - exact) <= figure.bound + 1e-12
    assert figure.bound < 0.005


def test_auroc_of_raw_scores() -> None:
    """Scores of a decision function give an AUROC, and neither log loss nor Brier score."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500).astype(np.float64)
    scores = (rng.normal(size=(500, 1)) * 40 + 30 * labels[:, None]).astype(np.float32)
    quality = Classification(2)
    quality.update(Labelled(labels, np.full(500, np.nan), scores, SCORE_RAW, np.ones(500)))
    figures = quality.figures()
    value, _, bound = figures["roc_auc"]
    assert value is not None
    assert abs(value - metrics.roc_auc_score(labels, scores)) <= bound + 1e-12
    assert figures["log_loss"] == (None, "no labelled probabilities", 0.0)
    assert figures["accuracy"].value is None
    assert quality.rows == 500


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_regression_is_scikit_learns(weighted: bool, mean: float) -> None:
    """MAE, RMSE and R² equal scikit-learn's, merged from parts, also far from zero."""
    batch = regressed(1000, weighted=weighted, mean=mean)
    quality = Regression()
    for start in range(0, 1000, 90):
        part = Regression()
        part.update(cut(batch, start, start + 90))
        quality.merge(part)
    figures = {name: figure.value for name, figure in quality.figures().items()}
    y, said, w = batch.labels, batch.predictions, batch.weights
    assert figures["mae"] == pytest.approx(metrics.mean_absolute_error(y, said, sample_weight=w))
    assert figures["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, said, sample_weight=w))
    assert figures["r2"] == pytest.approx(metrics.r2_score(y, said, sample_weight=w), rel=1e-6)


def test_labels_of_one_class_only() -> None:
    """AUROC and recall say why they have no value; accuracy still has one."""
    batch = classified(100, 2)
    quality = Classification(2)
    quality.update(batch._replace(labels=np.zeros(100)))
    figures = quality.figures()
    assert figures["roc_auc"] == (None, "labels of one class only", 0.0)
    assert figures["recall"] == (None, "no label of the last class", 0.0)
    assert figures["accuracy"].value is not None


def test_last_class_never_predicted() -> None:
    """Precision says why it has no value."""
    batch = classified(100, 2)
    quality = Classification(2)
    quality.update(batch._replace(predictions=np.zeros(100)))
    assert quality.figures()["precision"] == (None, "the last class was never predicted", 0.0)


def test_a_label_beyond_the_models_classes_is_wrong() -> None:
    """A class that the model does not know counts as wrong, with probability 0; so does one beyond the matrix."""
    for label in (2.0, float(MAX_CLASSES), float(MAX_CLASSES + 5)):
        quality = Classification(2)
        scores = np.array([[0.5]], np.float32)
        quality.update(Labelled(np.array([label]), np.array([1.0]), scores, 1, np.ones(1)))
        figures = quality.figures()
        assert figures["accuracy"].value == 0.0
        assert figures["log_loss"].value == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_two_classes_beyond_the_matrix_do_not_match() -> None:
    """Label and prediction that share the overflow cell are not counted as right."""
    quality = Classification(100)
    overflow = np.array([float(MAX_CLASSES)])
    quality.update(Labelled(overflow, overflow, None, 0, np.ones(1)))
    assert quality.figures()["accuracy"].value == 0.0


def test_constant_labels_have_no_r2() -> None:
    """R² of equal labels, or of a single one, is None with a reason."""
    quality = Regression()
    quality.update(Labelled(np.ones(1), np.zeros(1), None, 0, np.ones(1)))
    assert quality.figures()["r2"] == (None, "fewer than two labelled predictions", 0.0)
    quality.update(Labelled(np.ones(3), np.zeros(3), None, 0, np.ones(3)))
    assert quality.figures()["r2"] == (None, "all labels are equal", 0.0)
    assert quality.figures()["mae"].value == 1.0


def test_scores_that_come_later_join() -> None:
    """Predictions first and scores later give the same as both at once."""
    batch = classified(200, 3)
    once, twice = Classification(3), Classification(3)
    once.update(batch)
    twice.update(batch._replace(scores=None))
    twice.update_scores(batch)
    assert once.figures() == twice.figures()
    assert once.rows == twice.rows == 200


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (5, 10), (990, 1000)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    """The interval of scipy.stats.binomtest(…).proportion_ci(method="wilson")."""
    from scipy.stats import binomtest

    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0.5, 0) == (0.0, 1.0)
