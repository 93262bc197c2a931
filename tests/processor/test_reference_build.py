"""A profile from a table holds the cells that the application's capture would send."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from mlspan.payload import category_code
from mlspan.profile import to_json
from mlspan_processor import reference_build
from mlspan_processor.reference import build_reference


@pytest.fixture
def frame() -> pd.DataFrame:
    """Every kind of column, with missing values, labels, predictions and probabilities."""
    rng = np.random.default_rng(0)
    n = 3000
    p = rng.random(n)
    frame = pd.DataFrame(
        {
            "amount": rng.normal(size=n),
            "hour": rng.integers(0, 24, n),
            "weekend": rng.random(n) < 0.3,
            "carrier": rng.choice(np.array(["UA", "DL", None], object), n),
            "origin": pd.Categorical(rng.choice(["JFK", "EWR"], n)),
            "day": pd.date_range("2024-01-01", periods=n, freq="h"),
            "delayed": np.where(rng.random(n) < p, "late", "early"),
            "said": np.where(p > 0.5, "late", "early"),
            "p_early": 1 - p,
            "p_late": p,
        }
    )
    frame.loc[::10, "amount"] = np.nan
    return frame


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz", ".tsv"])
def test_columns_become_cells(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    """Types, categories with their texts and codes, missing values, moments: from every kind of file."""
    file = tmp_path / f"train{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, sep="\t" if suffix == ".tsv" else ",")
    seen: list[tuple[int, int | None]] = []
    profile = build_reference(
        file,
        label="delayed",
        prediction="said",
        probabilities=["p_early", "p_late"],
        model="flights",
        version="3",
        progress=lambda done, of: seen.append((done, of)),
    )
    by_name = {feature.name: feature for feature in profile.features}
    assert list(by_name) == ["amount", "hour", "weekend", "carrier", "origin", "day"]
    assert [feature.type for feature in profile.features] == [
        "numeric",
        "numeric",
        "boolean",
        "categorical",
        "categorical",
        "numeric",
    ]
    carrier = by_name["carrier"]
    assert carrier.codes is not None
    assert carrier.labels is not None
    assert dict(zip(carrier.labels, carrier.codes.tolist(), strict=True)) == {
        text: category_code(text, b"mlspan") for text in ("UA", "DL")
    }
    assert carrier.counts[-1] == frame["carrier"].isna().sum()
    assert by_name["amount"].counts[-1] == 300
    assert by_name["hour"].mean == pytest.approx(frame["hour"].mean())
    assert profile.classes == ("early", "late")
    assert profile.prediction is not None
    assert profile.prediction.counts[:2].tolist() == [(frame["said"] == c).sum() for c in ("early", "late")]
    assert profile.score is not None
    assert (profile.model_name, profile.model_version, profile.rows) == ("flights", "3", 3000)
    assert profile.source == f"file train{suffix}, 3000 rows"
    assert seen[-1] == (3000, 3000 if suffix == ".parquet" else None)
    late = frame["delayed"] == "late"
    expected = {
        "accuracy": metrics.accuracy_score(frame["delayed"], frame["said"]),
        "f1": metrics.f1_score(late, frame["said"] == "late"),
        "log_loss": metrics.log_loss(late, frame["p_late"]),
        "brier": metrics.brier_score_loss(late, frame["p_late"]),
    }
    for name, value in expected.items():
        assert profile.performance[name] == pytest.approx(value, rel=1e-5)
    assert profile.performance["roc_auc"] == pytest.approx(metrics.roc_auc_score(late, frame["p_late"]), abs=0.005)


def test_regression(tmp_path: Path) -> None:
    """Floating-point labels are those of a regression."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=500), "y": rng.normal(size=500)})
    frame["said"] = frame["y"] + rng.normal(size=500) / 3
    file = tmp_path / "t.parquet"
    frame.to_parquet(file)
    profile = build_reference(file, label="y", prediction="said")
    assert profile.task == "regression"
    assert profile.performance["mae"] == pytest.approx(metrics.mean_absolute_error(frame["y"], frame["said"]), rel=1e-6)
    assert profile.performance["r2"] == pytest.approx(metrics.r2_score(frame["y"], frame["said"]), rel=1e-6)


def test_chosen_features_key_and_integer_classes(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Only the named features; texts hashed with the given key; integer classes sorted as numbers."""
    frame["y"] = np.arange(len(frame)) % 11
    file = tmp_path / "t.parquet"
    frame.to_parquet(file)
    profile = build_reference(file, features=["carrier"], label="y", hash_key=b"other")
    assert [feature.name for feature in profile.features] == ["carrier"]
    assert profile.classes == tuple(map(str, range(11)))
    assert profile.performance == {}
    assert profile.features[0].codes is not None
    assert category_code("UA", b"other") in profile.features[0].codes.tolist()


def test_sample_is_bounded_uniform_and_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond MAX_ROWS a uniform sample stands for the file; the same file gives the same profile."""
    monkeypatch.setattr(reference_build, "MAX_ROWS", 2000)
    file = tmp_path / "t.parquet"
    pd.DataFrame({"x": np.arange(60_000, dtype=float)}).to_parquet(file, row_group_size=5000)
    profile = build_reference(file)
    assert profile.rows == 2000
    assert profile.source == "file t.parquet, 60000 rows"
    assert profile.features[0].mean == pytest.approx(30_000, rel=0.05)
    assert profile.features[0].std == pytest.approx(60_000 / 12**0.5, rel=0.05)
    assert to_json(build_reference(file)) == to_json(profile)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "nothing"}, r'has no column "nothing"; it has amount, hour'),
        ({"features": ["amount"], "label": "amount"}, "two roles"),
        ({"label": "delayed", "probabilities": ["p_early", "p_late", "amount"]}, "3 probability columns for 2 classes"),
        ({"probabilities": ["p_late"]}, "probabilities need a label or prediction"),
        ({"label": "delayed", "probabilities": ["carrier"]}, "a column of numbers holds something else"),
        ({"label": "many"}, "more than 1000 different values"),
    ],
)
def test_columns_that_do_not_fit(frame: pd.DataFrame, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Each misuse is a ValueError that says what is wrong."""
    frame["many"] = [f"c{i}" for i in range(len(frame))]
    file = tmp_path / "t.parquet"
    frame.to_parquet(file)
    with pytest.raises(ValueError, match=message):
        build_reference(file, **options)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, of another kind, damaged and empty files are told apart."""
    with pytest.raises(OSError, match="nothing"):
        build_reference(tmp_path / "nothing.parquet")
    with pytest.raises(ValueError, match=r"must be a \.parquet or a \.csv file"):
        build_reference(tmp_path / "x.xlsx")
    damaged = tmp_path / "x.parquet"
    damaged.write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match="cannot be read"):
        build_reference(damaged)
    empty = tmp_path / "e.parquet"
    pd.DataFrame({"x": np.zeros(0)}).to_parquet(empty)
    with pytest.raises(ValueError, match="has no rows"):
        build_reference(empty)


def test_a_column_that_is_named_twice_is_told(tmp_path: Path) -> None:
    """Such a table cannot say which column is meant."""
    file = tmp_path / "t.csv"
    file.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(ValueError, match='names the column "a" twice'):
        build_reference(file)
