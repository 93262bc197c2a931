"""Realised figures of rows in memory against scikit-learn, and what odd input gives."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from mlspan_processor.quality.realised import influences, labelled, of_quality, quality_of, realised
from mlspan_processor.sample import Sample
from tests.processor.quality.samples import MAKERS, binary, made, multiclass, multilabel, regression

WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


def sample_of(maker: Callable[..., Sample], weighted: bool, n: int = 1500) -> Sample:
    """Rows with ties among the scores."""
    sample = maker(np.random.default_rng(1), n, weighted=weighted)
    return (
        sample
        if sample.scores is None or sample.task == "multiclass"
        else replace(sample, scores=np.round(sample.scores, 2))
    )


def assert_equal(sample: Sample, expected: dict[str, Any]) -> None:
    """Assert these figures."""
    found = realised(sample)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-9), name
        low, high = found[name].low, found[name].high
        assert low is not None
        assert high is not None
        assert low <= value <= high
        assert found[name].labels == len(sample)


@WEIGHTED
def test_binary_is_scikit_learns(weighted: bool) -> None:
    """Every figure of two classes, AUROC and average precision exactly."""
    sample = sample_of(binary, weighted)
    assert sample.scores is not None
    y, said, p, w = sample.labels, sample.predictions, sample.scores[:, 0], {"sample_weight": sample.weights}
    expected = {
        "accuracy": metrics.accuracy_score(y, said, **w),
        "precision": metrics.precision_score(y, said, **w),
        "recall": metrics.recall_score(y, said, **w),
        "specificity": metrics.recall_score(1 - y, 1 - said, **w),
        "f1": metrics.f1_score(y, said, **w),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, said, **w),
        "mcc": metrics.matthews_corrcoef(y, said, **w),
        "roc_auc": metrics.roc_auc_score(y, p, **w),
        "average_precision": metrics.average_precision_score(y, p, **w),
        "log_loss": metrics.log_loss(y, np.clip(p, np.finfo(np.float32).eps, 1), **w),
        "brier": metrics.brier_score_loss(y, p, **w),
    }
    assert_equal(sample, expected)
    assert set(realised(sample)) == {*expected, "ece"}


@WEIGHTED
def test_multiclass_is_scikit_learns(weighted: bool) -> None:
    """Macro averages; AUROC and average precision one-versus-rest."""
    sample = sample_of(multiclass, weighted)
    y, said, p, w = sample.labels, sample.predictions, sample.scores, {"sample_weight": sample.weights}
    one_hot = np.eye(4)[y.astype(int)]
    negatives = [metrics.recall_score(y != k, said != k, **w) for k in range(4)]
    assert_equal(
        sample,
        {
            "accuracy": metrics.accuracy_score(y, said, **w),
            "precision": metrics.precision_score(y, said, average="macro", **w),
            "recall": metrics.recall_score(y, said, average="macro", **w),
            "specificity": np.mean(negatives),
            "f1": metrics.f1_score(y, said, average="macro", **w),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, said, **w),
            "mcc": metrics.matthews_corrcoef(y, said, **w),
            "roc_auc": metrics.roc_auc_score(y, p, multi_class="ovr", **w),
            "average_precision": metrics.average_precision_score(one_hot, p, **w),
            "log_loss": metrics.log_loss(y, p, **w),
        },
    )


@WEIGHTED
def test_multilabel_is_scikit_learns(weighted: bool) -> None:
    """Subset accuracy, Hamming loss, macro and micro averages."""
    sample = sample_of(multilabel, weighted)
    y, said, p, w = sample.labels, sample.predictions, sample.scores, {"sample_weight": sample.weights}
    expected = {
        "accuracy": metrics.accuracy_score(y, said, **w),
        "hamming_loss": metrics.hamming_loss(y, said, **w),
        "roc_auc": metrics.roc_auc_score(y, p, **w),
        "average_precision": metrics.average_precision_score(y, p, **w),
    }
    for name in ("precision", "recall", "f1"):
        function = getattr(metrics, f"{name}_score")
        expected[name] = function(y, said, average="macro", **w)
        expected[f"{name}_micro"] = function(y, said, average="micro", **w)
    assert_equal(sample, expected)
    assert set(realised(sample)) == {*expected, "log_loss", "brier", "ece"}


@WEIGHTED
def test_multilabel_losses_are_the_means_of_scikit_learns(weighted: bool) -> None:
    """Log loss and Brier score of each output, averaged; the calibration error of each output, averaged."""
    sample = sample_of(multilabel, weighted)
    assert sample.scores is not None
    outputs = range(len(sample.classes))
    parts = [
        replace(
            sample,
            task="binary",
            classes=("0", "1"),
            labels=sample.labels[:, k],
            predictions=sample.predictions[:, k],
            scores=sample.scores[:, [k]],
        )
        for k in outputs
    ]
    found = realised(sample)
    for name, function in (("log_loss", metrics.log_loss), ("brier", metrics.brier_score_loss)):
        each = [
            function(sample.labels[:, k], sample.scores[:, k], sample_weight=sample.weights, labels=[0, 1])
            for k in outputs
        ]
        assert found[name].value == pytest.approx(np.mean(each), rel=1e-9)
    assert found["ece"].value == pytest.approx(np.mean([realised(part)["ece"].value for part in parts]), rel=1e-9)
    low, value, high = found["ece"].low, found["ece"].value, found["ece"].high
    assert low is not None
    assert value is not None
    assert high is not None
    assert low <= value <= high


@WEIGHTED
def test_regression_is_scikit_learns(weighted: bool) -> None:
    """The median error exactly too."""
    sample = sample_of(regression, weighted)
    y, said, w = sample.labels, sample.predictions, {"sample_weight": sample.weights}
    assert_equal(
        sample,
        {
            "mae": metrics.mean_absolute_error(y, said, **w),
            "mse": metrics.mean_squared_error(y, said, **w),
            "rmse": metrics.root_mean_squared_error(y, said, **w),
            "r2": metrics.r2_score(y, said, **w),
            "mape": metrics.mean_absolute_percentage_error(y, said, **w),
            "median_ae": metrics.median_absolute_error(y, said, **w),
            "bias": np.average(said - y, weights=sample.weights),
        },
    )


@pytest.mark.parametrize("task", MAKERS)
def test_the_sums_of_a_stream_give_the_same(task: str) -> None:
    """By the same names; histograms within their bound."""
    sample = MAKERS[task](np.random.default_rng(2), 1000, weighted=True)
    exact, sums = realised(sample), quality_of(sample)
    figures = sums.figures()
    assert list(exact) == list(of_quality(sums))
    for name, figure in exact.items():
        assert figures[name].value == pytest.approx(figure.value, abs=figures[name].bound + 1e-9), name
        assert figures[name].bound < 0.02


@pytest.mark.parametrize("task", MAKERS)
def test_influences_give_the_variance(task: str) -> None:
    """Their mean is 0, and their mean square over n is the figure's variance over many samples."""
    rng = np.random.default_rng(3)
    values: dict[str, list[float]] = {}
    for _ in range(60):
        for name, figure in realised(MAKERS[task](rng, 400)).items():
            values.setdefault(name, []).append(figure.value or 0.0)
    sample = MAKERS[task](rng, 5000)
    for name, gains in influences(quality_of(sample), labelled(sample)).items():
        spread = float(np.std(values[name])) * np.sqrt(400)
        assert abs(gains.mean()) < 1e-6 * gains.std() + 1e-12 or name == "median_ae"
        if name != "median_ae":  # its influence is known up to the density there
            assert gains.std() == pytest.approx(spread, rel=0.35), name


@pytest.mark.parametrize("task", MAKERS)
def test_no_rows_and_no_labels(task: str) -> None:
    """Every figure is None with a reason."""
    sample = MAKERS[task](np.random.default_rng(0), 50)
    for odd in (sample.take(slice(0, 0)), replace(sample, labels=np.full_like(sample.labels, np.nan))):
        for name, figure in realised(odd).items():
            assert figure.value is None, name
            assert figure.low is figure.high is None
            assert figure.reason
            assert figure.labels == 0


def test_labels_of_one_class() -> None:
    """What needs two classes is undecided, the rest is not."""
    sample = binary(np.random.default_rng(0), 100)
    found = realised(replace(sample, labels=np.zeros(100)))
    undecided = {name for name, figure in found.items() if figure.value is None}
    assert undecided == {"recall", "balanced_accuracy", "mcc", "roc_auc", "average_precision"}
    assert found["roc_auc"].reason == "labels of one class only"
    assert found["specificity"].value is not None
    assert realised(replace(sample, labels=np.ones(100)))["specificity"].reason == "no label of the first class"


@pytest.mark.parametrize(
    ("maker", "change", "reason"),
    [
        (binary, lambda p: p + 0.5, "rows lie outside [0, 1]"),
        (multiclass, lambda p: p * 0.5, "rows do not sum to 1"),
        (multilabel, lambda p: p - 0.2, "rows lie outside [0, 1]"),
    ],
)
def test_numbers_that_are_no_probabilities(maker: Any, change: Any, reason: str) -> None:
    """Losses and calibration are undecidable; an order is all that AUROC needs."""
    sample = maker(np.random.default_rng(0), 200)
    found = realised(replace(sample, scores=change(sample.scores)))
    for name in {"log_loss", "brier", "ece"} & set(found):
        assert found[name].value is None
        assert found[name].reason.startswith("undecidable, because the probabilities of ")
        assert found[name].reason.endswith(reason)
    assert found["roc_auc"].value == pytest.approx(realised(sample)["roc_auc"].value)


def test_rows_that_cannot_be_used_are_left_out() -> None:
    """NaN, infinite and negative labels, missing answers, weights that are none."""
    sample = binary(np.random.default_rng(0), 400)
    labels, weights = sample.labels.copy(), sample.weights.copy()
    labels[:4] = [np.nan, np.inf, -1.0, -np.inf]
    weights[4:7] = [0.0, np.nan, -1.0]
    odd = realised(replace(sample, labels=labels, weights=weights))
    assert {name: one[:4] for name, one in odd.items()} == {
        name: one[:4] for name, one in realised(sample.take(slice(7, None))).items()
    }


def test_no_scores_and_no_predictions() -> None:
    """Each kind of figure needs its own kind of answer."""
    sample = binary(np.random.default_rng(0), 200)
    found = realised(replace(sample, scores=None))
    assert found["accuracy"].value is not None
    assert found["roc_auc"].reason == "no labelled scores"
    assert found["brier"].reason == "no labelled probabilities"
    found = realised(replace(sample, predictions=np.full(200, np.nan)))
    assert found["accuracy"].reason == "no labelled predictions"
    assert (found["accuracy"].labels, found["roc_auc"].labels) == (0, 200)


def test_two_columns_of_two_classes() -> None:
    """Are the same as the second one."""
    sample = binary(np.random.default_rng(0), 200)
    assert sample.scores is not None
    both = replace(sample, scores=np.hstack([1 - sample.scores, sample.scores]))
    assert realised(both) == realised(sample)


def test_too_many_classes_for_scores() -> None:
    """Beyond 32 classes there are no figures of scores, with a reason."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 40, 500)
    p = rng.dirichlet(np.ones(40), 500)
    found = realised(made("multiclass", y, y, p, None, tuple(map(str, range(40)))))
    assert found["accuracy"].value == 1.0
    assert found["log_loss"].reason == "undecidable, because probabilities of more than 32 classes are not kept"


def test_numbers_too_large_and_labels_of_zero() -> None:
    """A sum that overflows is undecidable; so is a relative error of a label that is 0."""
    found = realised(made("regression", [1e200, 1.0, 2.0], [0.0, 1.0, 2.0]))
    assert found["mse"].reason == "undecidable, because the numbers are too large"
    assert realised(made("regression", [0.0, 1.0], [0.0, 1.0]))["mape"].reason == "undecidable, because 1 labels are 0"
