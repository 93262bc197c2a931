"""The figures are those of scikit-learn and scipy, on data that everybody has."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import datasets, metrics
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlspan_processor import Analysis, analyze


def _scored(data: Any, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both halves of a data set's unseen part, with the model's answers in columns."""
    x = pd.DataFrame(data.data, columns=[f"f{i}" for i in range(data.data.shape[1])])
    first, rest, known, truth = train_test_split(x, data.target, test_size=0.6, random_state=0, stratify=data.target)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(first, known)
    frame = rest.assign(truth=[names[i] for i in truth], said=[names[i] for i in model.predict(rest)])
    for k, column in enumerate(model.predict_proba(rest).T):
        frame[f"p_{names[k]}"] = column
    half = len(frame) // 2
    return frame[:half], frame[half:]


def _values(result: Analysis) -> dict[str, float | None]:
    return {name: one.realised for name, one in result.windows[0].metrics.items()}


def test_binary() -> None:
    """Breast cancer: every figure of two classes; the class that the probability names is the positive one."""
    reference, current = _scored(datasets.load_breast_cancer(), ["malignant", "benign"])
    result = analyze(
        reference=reference,
        current=current,
        prediction="said",
        probability="malignant=p_malignant",
        label="truth",
        features=[f"f{i}" for i in range(30)],
    )
    assert (result.task, result.classes) == ("binary", ("benign", "malignant"))
    truth, said, p = current["truth"] == "malignant", current["said"] == "malignant", current["p_malignant"]
    expected = {
        "accuracy": metrics.accuracy_score(truth, said),
        "precision": metrics.precision_score(truth, said),
        "recall": metrics.recall_score(truth, said),
        "f1": metrics.f1_score(truth, said),
        "roc_auc": metrics.roc_auc_score(truth, p),
        "log_loss": metrics.log_loss(truth, p),
        "brier": metrics.brier_score_loss(truth, p),
        "average_precision": metrics.average_precision_score(truth, p),
    }
    found = _values(result)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert {one.labels for one in result.windows[0].metrics.values()} == {len(current)}


def test_multiclass() -> None:
    """Digits: f1 is macro, the area under the curve one-versus-rest; predictions follow from the probabilities."""
    reference, current = _scored(datasets.load_digits(), list("0123456789"))
    result = analyze(
        reference=reference,
        current=current,
        probability=[f"{k}=p_{k}" for k in range(10)],
        label="truth",
        features=["f20", "f21"],
    )
    assert result.task == "multiclass"
    probabilities = current[[f"p_{k}" for k in range(10)]]
    expected = {
        "accuracy": metrics.accuracy_score(current["truth"], current["said"]),
        "f1": metrics.f1_score(current["truth"], current["said"], average="macro"),
        "roc_auc": metrics.roc_auc_score(current["truth"], probabilities, multi_class="ovr", average="macro"),
        "log_loss": metrics.log_loss(current["truth"], probabilities),
    }
    found = _values(result)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("classes", [2, 3])
def test_log_loss_of_certainties(kind: Any, classes: int) -> None:
    """Probabilities of exactly 0 and 1, right and wrong: clipped by the type that they have, in segments too."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, 1000)
    said = np.where(rng.random(1000) < 0.9, truth, 0)
    p = np.where(rng.random(1000) < 0.5, 1.0, 0.9)[:, None] * np.eye(classes)[said]
    p[:, -1] += 1 - p.sum(axis=1)
    p = p.astype(kind)
    columns = [1] if classes == 2 else range(classes)
    frame = pd.DataFrame({"y": truth, "s": "all", **{f"p{k}": p[:, k] for k in columns}})
    named = [f"{k}=p{k}" for k in columns]
    [window] = analyze(
        reference=frame,
        current=frame,
        label="y",
        probability=named,
        segment="s",
        task="multiclass" if classes > 2 else None,
    ).windows
    expected = metrics.log_loss(truth, p)
    for metric in (window.metrics["log_loss"], window.segments["s"]["all"].metrics["log_loss"]):
        assert metric.realised == pytest.approx(expected, rel=1e-6)
        assert metric.reference == metric.realised


def test_log_loss_of_outputs_that_are_certain() -> None:
    """Each output's as scikit-learn's, of which the figure is the mean."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, (500, 2))
    p = np.where(rng.random((500, 2)) < 0.95, y, 1.0 - y)
    frame = pd.DataFrame({"y0": y[:, 0], "y1": y[:, 1], "p0": p[:, 0], "p1": p[:, 1]})
    roles: dict[str, Any] = {"label": {"a": "y0", "b": "y1"}, "probability": {"a": "p0", "b": "p1"}}
    [window] = analyze(reference=frame, current=frame, **roles).windows
    expected = np.mean([metrics.log_loss(y[:, k], p[:, k]) for k in range(2)])
    assert window.metrics["log_loss"].realised == pytest.approx(expected, rel=1e-6)


def test_regression() -> None:
    """Diabetes: mean absolute error, root mean squared error and R²."""
    x, y = datasets.load_diabetes(return_X_y=True)
    model = LinearRegression().fit(x[:200], y[:200])
    frame = pd.DataFrame(x, columns=[f"f{i}" for i in range(10)]).assign(y=y, said=model.predict(x))
    result = analyze(reference=frame[200:320], current=frame[320:], prediction="said", label="y")
    truth, said = frame["y"][320:], frame["said"][320:]
    expected = {
        "mae": metrics.mean_absolute_error(truth, said),
        "rmse": metrics.root_mean_squared_error(truth, said),
        "r2": metrics.r2_score(truth, said),
    }
    assert result.task == "regression"
    found = _values(result)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_distances_of_categories() -> None:
    """Shares of few values: population stability index and Jensen-Shannon distance are exact."""
    rng = np.random.default_rng(0)
    reference = pd.DataFrame({"kind": rng.choice(list("abcd"), 4000, p=[0.4, 0.3, 0.2, 0.1])})
    current = pd.DataFrame({"kind": rng.choice(list("abcd"), 1000, p=[0.3, 0.3, 0.2, 0.2])})
    found = analyze(reference=reference, current=current).windows[0].features["kind"]
    p, q = (frame["kind"].value_counts(normalize=True).sort_index() for frame in (reference, current))
    assert found.psi == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p))
    middle = (p + q) / 2
    assert found.js == pytest.approx(np.sqrt((stats.entropy(p, middle, 2) + stats.entropy(q, middle, 2)) / 2))
    assert (found.ks, found.wasserstein) == (None, None)
    assert "no numbers" in found.reason
    assert found.drifted is True


def test_distances_of_numbers() -> None:
    """Kolmogorov-Smirnov's statistic is within a bin's share of scipy's, Wasserstein's distance within 15 %."""
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=5000), rng.normal(0.4, 1.2, size=2000)
    result = analyze(reference={"x": before}, current={"x": now})
    found = result.windows[0].features["x"]
    assert found.ks == pytest.approx(stats.ks_2samp(before, now).statistic, abs=0.02)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(before, now) / before.std(), rel=0.15)
    assert found.p_value is not None
    assert found.p_value < 1e-12
