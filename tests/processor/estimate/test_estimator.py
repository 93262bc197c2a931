"""The estimator of a model: choice, bands, odd input, storage."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mlspan_processor.estimate import METRICS, Estimator
from mlspan_processor.estimate.base import rows_of, usable
from mlspan_processor.estimate.expected import Figures
from mlspan_processor.estimate.loss import figures, moments_of
from mlspan_processor.sample import Sample
from tests.processor.estimate.worlds import binary, multiclass, regression, sample

WORLDS = {"binary": binary, "multiclass": multiclass, "regression": regression}


@pytest.fixture(scope="module")
def estimators() -> dict[str, Estimator]:
    """One for each task, on 1,500 rows."""
    return {name: Estimator.fit(world(1500, 1)) for name, world in WORLDS.items()}


def _realised(window: Sample) -> dict[str, float]:
    if window.task == "regression":
        off = moments_of(window.labels - window.predictions)
        values = figures(off, window.predictions, window.weights)
    else:
        values = Figures(rows_of(window, usable(window)[0])).of_labels(window.labels.astype(np.int64))
    return dict(zip(METRICS[window.task], values, strict=True))


@pytest.mark.parametrize("task", WORLDS)
def test_bands_hold_the_realised_value(estimators: dict[str, Estimator], task: str) -> None:
    """Without a shift, 95 % bands of every figure miss at most what chance allows (binomial, 15 windows: 4)."""
    misses = dict.fromkeys(METRICS[task], 0)  # type: ignore[index]
    for seed in range(100, 115):
        window = WORLDS[task](400, seed)
        realised = _realised(window)
        for name, one in estimators[task].estimate(window).items():
            assert one.low is not None
            assert one.high is not None
            misses[name] += not one.low <= realised[name] <= one.high
    assert max(misses.values()) <= 4
    assert set(misses) == set(METRICS[task])  # type: ignore[index]


@pytest.mark.parametrize("task", WORLDS)
def test_an_estimate_does_not_look_at_labels(estimators: dict[str, Estimator], task: str) -> None:
    """Other labels, or none, change nothing."""
    window = WORLDS[task](400, 5)
    expected = estimators[task].estimate(window)
    for labels in (np.full(400, np.nan), 1 - window.labels):
        assert estimators[task].estimate(replace(window, labels=labels)) == expected


@pytest.mark.parametrize("task", WORLDS)
def test_bytes_bring_back_the_same_estimates(task: str) -> None:
    """Stored and read, an estimator says what it said; fitted twice, too."""
    reference, window = WORLDS[task](200, 1), WORLDS[task](100, 2)
    one = Estimator.fit(reference, seed=4)
    assert Estimator.from_bytes(one.to_bytes()).estimate(window) == one.estimate(window)


def test_bytes_of_something_else_are_refused() -> None:
    """ValueError, no pickle."""
    with pytest.raises(ValueError, match="not the bytes of one"):
        Estimator.from_bytes(b"nothing")


def test_a_covariate_shift_is_followed(estimators: dict[str, Estimator]) -> None:
    """Where CBPE's accuracy cannot move with an unused feature, the pool's does; the method is named."""
    window = binary(4000, 7, shift=1.0)
    found = estimators["binary"].estimate(window)
    assert estimators["binary"].method == "blend"
    assert found["accuracy"].method in {"blend", "weighted"}
    assert found["recall"].value == pytest.approx(_realised(window)["recall"], abs=0.03)
    assert found["accuracy"].value == pytest.approx(_realised(window)["accuracy"], abs=0.03)


def test_a_growing_loss_is_foreseen(estimators: dict[str, Estimator]) -> None:
    """MAE and RMSE of a regression follow the feature that the error depends on."""
    before, after = (estimators["regression"].estimate(regression(3000, 8, shift=by)) for by in (0.0, 0.7))
    truth = _realised(regression(3000, 8, shift=0.7))
    assert before["mae"].value is not None
    assert after["mae"].value is not None
    assert after["mae"].value > 1.2 * before["mae"].value
    assert after["mae"].value == pytest.approx(truth["mae"], rel=0.2)
    assert after["mae"].method == "loss"


def test_no_overlap_falls_back_to_cbpe(estimators: dict[str, Estimator]) -> None:
    """Where the reference has no rows, features are not relied on, and bands are wider."""
    far, near = (estimators["binary"].estimate(binary(1000, 9, shift=by))["accuracy"] for by in (9.0, 0.0))
    assert far.method == "cbpe"
    assert far.low is not None
    assert far.high is not None
    assert near.low is not None
    assert near.high is not None
    assert far.high - far.low > 1.5 * (near.high - near.low)


def _nan(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    return np.asarray(values) * np.nan


ODD_REFERENCES: dict[str, tuple[Callable[[Sample], Sample], str]] = {
    "few rows": (lambda one: one.take(slice(0, 99)), "fewer than 100"),
    "no rows": (lambda one: one.take(slice(0, 0)), "there are no rows"),
    "no labels": (lambda one: replace(one, labels=_nan(one.labels)), "no labelled rows"),
    "one class": (lambda one: replace(one, labels=np.zeros(len(one))), "labels of one class only"),
    "no scores": (lambda one: replace(one, scores=None), "gives no probabilities"),
    "missing scores": (lambda one: replace(one, scores=_nan(one.scores)), "no row has probabilities"),
    "above 1": (lambda one: replace(one, scores=np.asarray(one.scores) + 0.5), r"lie outside \[0, 1\]"),
    "below 0": (lambda one: replace(one, scores=np.asarray(one.scores) - 0.5), r"lie outside \[0, 1\]"),
    "no predictions": (lambda one: replace(one, predictions=_nan(one.predictions)), "both a prediction and"),
    "one class declared": (lambda one: replace(one, classes=("a",)), "fewer than two classes"),
}


@pytest.mark.parametrize("name", ODD_REFERENCES)
def test_odd_references_are_undecidable(name: str) -> None:
    """Every figure is None with a reason, before and after storage; nothing raises."""
    change, why = ODD_REFERENCES[name]
    estimator = Estimator.fit(change(binary(300, 1)))
    for one in (estimator, Estimator.from_bytes(estimator.to_bytes())):
        found = one.estimate(binary(300, 2))
        assert set(found) == set(METRICS["binary"])
        for figure in found.values():
            assert figure[:3] == (None, None, None)
            assert figure.reason == one.reason
        assert one.reason.startswith("undecidable, because ")
        assert re.search(why, one.reason)


def test_probabilities_that_do_not_sum_to_one_are_undecidable(estimators: dict[str, Estimator]) -> None:
    """In a window as in a reference."""
    odd = multiclass(300, 2)
    odd = replace(odd, scores=np.asarray(odd.scores) * 0.8)
    assert "do not sum to 1" in Estimator.fit(odd).reason
    assert "do not sum to 1" in estimators["multiclass"].estimate(odd)["f1"].reason


def test_odd_windows_are_undecidable(estimators: dict[str, Estimator]) -> None:
    """No rows, too few, no scores, and another model's rows."""
    one = estimators["binary"]
    window = binary(200, 2)
    assert "there are no rows" in one.estimate(window.take(slice(0, 0)))["f1"].reason
    assert "fewer than 10" in one.estimate(window.take(slice(0, 9)))["f1"].reason
    assert "gives no probabilities" in one.estimate(replace(window, scores=None))["f1"].reason
    assert "not the reference's" in one.estimate(replace(window, names=("a", "b", "c")))["f1"].reason


def test_constant_and_missing_features_do_no_harm() -> None:
    """Columns may be all missing, constant or infinite; a window may lack what the reference had."""
    reference, window = binary(600, 1), binary(400, 2)
    values = reference.values()
    values[:, 2] = np.nan
    odd = np.column_stack([values, np.full(600, 7.0), np.where(values[:, 0] > 2, np.inf, values[:, 0])])
    others = np.column_stack([np.full((400, 3), np.nan), np.zeros(400), np.full(400, np.inf)])
    names = tuple(f"x{j}" for j in range(5))
    before, after = (
        replace(one, names=names, types=("numeric",) * 5, cells=x.T.astype(np.float32).copy().view(np.uint32))
        for one, x in ((reference, odd), (window, others))
    )
    found = Estimator.fit(before).estimate(after)
    assert all(one.value is not None for one in found.values())


@pytest.mark.parametrize("task", WORLDS)
@pytest.mark.parametrize("known", [1, 2, 5])
def test_features_with_hardly_a_value_do_no_harm(task: str, known: int) -> None:
    """Parts of the reference have no value at all of such a column: it is estimated without it."""
    reference, window = (WORLDS[task](n, seed) for n, seed in ((600, 3), (300, 4)))
    # Here and there, so that folds, halves and the trees' own validation all come to have none.
    for at in range(0, 600, 200):
        bare = np.full((1, 600), np.nan, np.float32)
        bare[0, at : at + known] = np.arange(known)
        empty = np.full((1, 300), np.nan, np.float32)
        wider = [
            replace(one, names=(*one.names, "bare"), types=(*one.types, "numeric"), cells=np.vstack([one.cells, more]))
            for one, more in ((reference, bare.view(np.uint32)), (window, empty.view(np.uint32)))
        ]
        found = Estimator.fit(wider[0]).estimate(wider[1])
        assert all(one.value is not None for one in found.values())


def test_one_predicted_class_leaves_only_what_exists() -> None:
    """No row predicted as the last class: precision has a reason, accuracy a value."""
    reference, window = binary(600, 1), binary(400, 2)
    found = Estimator.fit(reference).estimate(replace(window, predictions=np.zeros(400)))
    assert found["precision"].reason == "undecidable, because no row is predicted as the last class"
    assert found["accuracy"].value is not None


def test_multilabel_is_undecidable() -> None:
    """No estimate is made up for several outputs; there are no metrics to name."""
    odd = replace(binary(200, 1), task="multilabel")
    assert Estimator.fit(odd).reason.startswith("undecidable, because estimates are made for")


def test_large_references_are_bounded() -> None:
    """No more than 20,000 rows are kept."""
    reference = binary(400, 1)
    reference = replace(reference, labels=np.zeros(400)).take(np.arange(60_000) % 400)
    with np.load(io.BytesIO(Estimator.fit(reference).to_bytes())) as stored:
        assert stored["weights"].shape == (20_000,)


def test_importing_does_not_load_scikit_learn() -> None:
    """The processor's start stays light: scikit-learn and scipy.stats are loaded when something is fitted."""
    program = "import sys, mlspan_processor.estimate; print(sorted({'sklearn', 'scipy.stats'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_many_categories_are_no_trouble() -> None:
    """A feature of 200 categories, each often enough to be told apart, is estimated with like any other."""
    rng = np.random.default_rng(0)

    def world(n: int, seed: int) -> Sample:
        one = binary(n, seed)
        codes = rng.integers(1, 201, (1, n)).astype(np.uint32)
        cells = np.concatenate([one.cells, codes])
        return replace(one, names=(*one.names, "zip"), types=(*one.types, "categorical"), cells=cells)

    found = Estimator.fit(world(3000, 1)).estimate(world(500, 2))
    assert found["accuracy"].value is not None


def test_averages_are_over_the_references_classes() -> None:
    """A class that only the model knows counts in the estimate as little as in the reference, even if predicted."""

    def with_another_class(one: Sample) -> Sample:
        assert one.scores is not None
        scores = np.column_stack([1 - one.scores, one.scores, np.zeros(len(one))])
        return replace(one, task="multiclass", classes=("a", "b", "c"), scores=scores)

    reference, window = with_another_class(binary(1000, 1)), with_another_class(binary(500, 2))
    predictions = window.predictions.copy()
    predictions[0] = 2.0
    fitted = Estimator.fit(reference)
    before = _realised(reference)
    for one in (window, replace(window, predictions=predictions)):
        found = fitted.estimate(one)
        for name in ("f1", "precision", "recall", "roc_auc"):
            low, value = found[name].low, found[name].value
            assert value == pytest.approx(before[name], abs=0.05)
            assert low is not None
            assert low > before[name] - 0.1


def test_an_estimate_whose_band_would_hold_everything_is_none() -> None:
    """Where hardly a row of the last class is left, F1 by the new shares and by CBPE lie too far apart for any."""
    reference, window = _of_share(2000, 1, 0.3), _of_share(1000, 2, 0.0)
    found = Estimator.fit(reference).estimate(window)
    one = found["f1"]
    assert (one.value, one.low, one.high, one.method) == (None, None, None, "prior")
    assert one.reason == "undecidable, because any value from 0 to 1 would be within its band"
    assert found["accuracy"].value == pytest.approx(_realised(window)["accuracy"], abs=0.03)


def _of_share(n: int, seed: int, share: float) -> Sample:
    """Two classes three standard deviations apart, the last with this share; the model learnt them at 0.3."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < share
    x = rng.normal(size=(n, 2))
    x[:, 0] += 3 * labels
    return sample(x, 1 / (1 + np.exp(4.5 - np.log(0.3 / 0.7) - 3 * x[:, :1])), labels)
