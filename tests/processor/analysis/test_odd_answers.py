"""Answers, labels and columns that are gone, rare, huge or of odd types: told, or judged like others; never a crash."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mlspan_processor import analyze
from mlspan_processor.analysis import AnalysisError
from mlspan_processor.analysis.result import Alert

ROLES: dict[str, Any] = {"label": "y", "probability": "p"}
Change = Callable[[pd.DataFrame], pd.DataFrame]


def table(n: int, seed: int) -> pd.DataFrame:
    """Two numbers, a category, a calibrated probability and its label."""
    rng = np.random.default_rng(seed)
    x, z, c = rng.normal(size=n), rng.normal(size=n), rng.choice(list("abcd"), n, p=[0.5, 0.3, 0.15, 0.05])
    p = 1 / (1 + np.exp(-(x + 0.5 * z + (c == "a") * 0.5)))
    return pd.DataFrame({"x": x, "z": z, "c": c, "p": p, "y": (rng.random(n) < p).astype(int)})


REFERENCE, CURRENT = table(2000, 0), table(1000, 1)


def alerts(reference: Any, current: Any, **roles: Any) -> list[Alert]:
    """Of the only window."""
    [window] = analyze(reference=reference, current=current, **{**ROLES, **roles}).windows
    return list(window.alerts)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.assign(p=np.nan),
        lambda d: d.drop(columns="p"),
        lambda d: d.assign(p=d.p * 100),
    ],
    ids=["empty", "gone", "percent"],
)
def test_answers_that_are_gone_are_critical(change: Change) -> None:
    """As a feature that is gone is; labels say nothing then."""
    [alert] = alerts(REFERENCE, change(CURRENT))
    assert (alert.kind, alert.severity) == ("data_quality", "critical")
    assert alert.message.startswith("100.0% of the rows have no prediction, was 0.0%")


def test_answers_that_are_missing_more_often_are_told() -> None:
    """From a tenth of the rows on; as often as in the reference, or a little more often, is quiet."""
    some = CURRENT.assign(p=CURRENT.p.where(CURRENT.index % 10 < 4))
    [alert] = alerts(REFERENCE, some)
    assert (alert.kind, alert.severity, alert.value, alert.reference) == ("data_quality", "warning", 0.6, 0.0)
    assert alerts(REFERENCE.assign(p=REFERENCE.p.where(REFERENCE.index % 10 < 4)), some) == []
    assert alerts(REFERENCE, CURRENT.assign(p=CURRENT.p.where(CURRENT.index % 20 < 19))) == []
    said = REFERENCE.assign(q=(REFERENCE.p > 0.5) * 1.0)
    [alert] = alerts(said, CURRENT.assign(q=np.nan), prediction="q")
    assert alert.severity == "critical"


@pytest.mark.parametrize("members", [1, 2])
def test_a_class_of_one_or_two_labels(members: int) -> None:
    """An estimator is fitted without rows held out of each class, and the rest is judged."""
    rng = np.random.default_rng(0)
    rare = pd.DataFrame({"x": rng.normal(size=2000), "p": rng.uniform(0, 0.4, 2000), "y": 0})
    rare.loc[: members - 1, "y"] = 1
    [window] = analyze(reference=rare, current=rare, **ROLES).windows
    assert window.metrics["accuracy"].realised == pytest.approx(1 - members / 2000)


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(list("abcd"))], ids=["categorical", "enum"])
def test_categories_of_polars(kind: Any, tmp_path: Path) -> None:
    """As a feature and a segment, in memory and in parquet: the same as texts."""
    roles: list[dict[str, Any]] = [ROLES, {**ROLES, "segment": "c"}]
    plain = [analyze(reference=REFERENCE, current=CURRENT, **one).windows[0] for one in roles]
    frames = [pl.from_pandas(one).with_columns(pl.col("c").cast(kind)) for one in (REFERENCE, CURRENT)]
    files = [tmp_path / "r.parquet", tmp_path / "c.parquet"]
    for frame, file in zip(frames, files, strict=True):
        frame.write_parquet(file)
    for reference, current in (frames, files):
        found = [analyze(reference=reference, current=current, **one).windows[0] for one in roles]
        assert found[0].features == plain[0].features
        assert found[1].segments == plain[1].segments


def test_long_whole_numbers_of_csv_stay_apart(tmp_path: Path) -> None:
    """Ids beyond 2**53 are not repetitions of each other."""
    for frame, name in ((REFERENCE, "r.csv"), (CURRENT, "c.csv")):
        frame.assign(id=np.arange(len(frame)) + 1_700_000_000_000_000_000).to_csv(tmp_path / name, index=False)
    found = analyze(reference=tmp_path / "r.csv", current=tmp_path / "c.csv", id="id", **ROLES)
    assert (found.windows[0].rows, found.notes) == (len(CURRENT), ())


def test_whole_numbers_of_csv_that_turn_out_to_have_a_point(tmp_path: Path) -> None:
    """A column is read as numbers still where only its last row says that it holds no whole ones."""
    counts = [CURRENT.assign(k=[*["7"] * (len(CURRENT) - 1), "0.5"])] * 3000
    for name in ("r.csv", "c.csv"):
        pd.concat(counts[:40]).to_csv(tmp_path / name, index=False)
    found = analyze(reference=tmp_path / "r.csv", current=tmp_path / "c.csv", **ROLES)
    assert found.windows[0].features["k"].wasserstein is not None


@pytest.mark.parametrize("value", [1e200, 1e308])
@pytest.mark.parametrize(("which", "column"), [(0, "y"), (0, "p"), (1, "y"), (1, "p")])
def test_one_huge_number_of_a_regression(which: int, column: str, value: float) -> None:
    """A label or an answer whose square no double holds costs the figures that need it, not the analysis."""
    rng = np.random.default_rng(0)
    frames = []
    for n in (2000, 1000):
        y = rng.normal(size=n) * 10
        frames.append(pd.DataFrame({"y": y, "p": y + rng.normal(size=n), "x": y + rng.normal(size=n)}))
    frames[which].loc[0, column] = value
    [window] = analyze(reference=frames[0], current=frames[1], task="regression", label="y", prediction="p").windows
    mae = window.metrics["mae"]
    assert mae.realised is not None
    assert mae.realised > 1e190 if which else mae.realised < 1


def test_odd_columns_of_pandas() -> None:
    """Objects with pandas' NA among numbers and texts; intervals, which are told and left out."""
    mixed = [pd.NA if i % 7 == 0 else (1 if v else "0") for i, v in enumerate(REFERENCE.y)]
    assert alerts(REFERENCE.assign(y=pd.Series(mixed, dtype=object)), CURRENT) == []
    cut = [one.assign(b=pd.cut(one.x, 4)) for one in (REFERENCE, CURRENT)]
    found = analyze(reference=cut[0], current=cut[1], **ROLES)
    [note] = found.notes
    assert note.startswith("columns that hold neither numbers nor texts are not looked at: b (")


def test_a_class_with_two_columns_of_probabilities() -> None:
    """It is an error, since one would take the other's place."""
    frames = [one.assign(q=1 - one.p) for one in (REFERENCE, CURRENT)]
    with pytest.raises(AnalysisError, match='--probability names the class "1" twice'):
        analyze(reference=frames[0], current=frames[1], label="y", probability=["1=p", "1=q"])


@pytest.mark.parametrize("scale", [1.0, 1e300], ids=["ratio", "beyond float32"])
def test_infinities_as_often_as_in_the_reference_are_quiet(scale: float) -> None:
    """A ratio that is divided by zero at times is no news, nor are numbers that no float32 holds."""
    told = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        told += bool(analyze(reference=ratios(rng, 2000, scale), current=ratios(rng, 1000, scale)).alerted)
    assert told <= 1


def test_more_infinities_than_in_the_reference_are_told() -> None:
    """Whether it has some or none."""
    rng = np.random.default_rng(0)
    for before, now in ((0.15, 0.4), (0.0, 0.05)):
        assert analyze(reference=ratios(rng, 2000, share=before), current=ratios(rng, 1000, share=now)).alerted


def test_numbers_that_are_all_beyond_float32_are_not_compared() -> None:
    """They would all be one infinity, and any shift of them none: the reason says so, and nothing is claimed."""
    x, z = np.random.default_rng(0).normal(10, 1, (2, 2000))
    for scale in (1e300, np.inf):
        for now in (x * scale, x * scale * 3, x):
            [window] = analyze(reference={"x": x * scale, "z": z}, current={"x": now, "z": z}).windows
            found = window.features["x"]
            assert (found.drifted, found.p_value, window.alerts) == (None, None, ())
            assert found.reason.startswith("undecidable, because no number of the reference is within ±3.4e38")


def ratios(rng: np.random.Generator, n: int, scale: float = 1.0, share: float = 0.15) -> dict[str, Any]:
    """A number that is infinite at times, and one that never is."""
    x = rng.normal(size=n) * scale
    x[rng.random(n) < share] = np.inf
    return {"x": x, "z": rng.normal(size=n)}


def test_a_segment_that_is_called_as_the_rest_is() -> None:
    """Its rows are its own; those of values beyond the first 49 stand under another name."""

    def cut(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(s=["other" if i % 3 == 0 else f"v{i % 80}" for i in range(len(frame))])

    [window] = analyze(reference=cut(REFERENCE), current=cut(CURRENT), segment="s", **ROLES).windows
    groups = window.segments["s"]
    assert groups["other"].rows == 334
    assert groups["other values"].rows == len(CURRENT) - sum(
        one.rows for key, one in groups.items() if key != "other values"
    )


def test_labels_of_classes_that_nobody_knows_are_told() -> None:
    """Each window of which many are such says so, whichever row of an id has them; three among a thousand are quiet."""
    strange = CURRENT.assign(y=CURRENT.y.map({0: "x", 1: "y"}))
    [alert] = alerts(REFERENCE, strange)
    assert (alert.kind, alert.severity, alert.subject) == ("data_quality", "critical", "label")
    told = 'of the labels are of classes that neither the reference nor the model knows ("x", "y")'
    assert alert.message == f"100.0% {told}"
    later = [pd.concat([one.assign(y=None, i=one.index), one.assign(i=one.index)]) for one in (REFERENCE, strange)]
    assert [one.message for one in alerts(*later, id="i")] == [alert.message]
    some = CURRENT.assign(y=np.where(CURRENT.index < 100, "z", CURRENT.y.astype(str)))
    first, second = analyze(reference=REFERENCE, current=some, every="500rows", **ROLES).windows
    assert [(one.kind, one.severity, one.value) for one in first.alerts] == [("data_quality", "warning", 0.2)]
    assert second.alerts == ()
    assert alerts(REFERENCE, CURRENT.assign(y=np.where(CURRENT.index < 3, "z", CURRENT.y.astype(str)))) == []


def test_labels_that_a_model_of_several_classes_does_not_know() -> None:
    """Where the reference has no labels, its predictions say what is known; rare classes that come late are quiet."""
    said = [one.assign(said=one.c, y=one.c) for one in (REFERENCE, CURRENT)]
    strange = said[1].assign(y=said[1].c.str.replace("b", "x"))
    [alert] = alerts(said[0].drop(columns="y"), strange, label="y", prediction="said", probability=())
    assert alert.message.endswith('that neither the reference nor the model knows ("x")')
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rare = [
            pd.DataFrame({"y": 1000 + rng.zipf(1.7, n).clip(max=500), "said": 1001}).astype(str) for n in (1000, 500)
        ]
        found = analyze(reference=rare[0], current=rare[1], label="y", prediction="said").windows[0].alerts
        assert "data_quality" not in {one.kind for one in found}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([True, False], [1, 0]),
        ([1, 0], [True, False]),
        ([1, 0], ["1.0", "0.0"]),
        (["1.0", "0.0"], [1.0, 0.0]),
        (["true", "false"], [True, False]),
    ],
)
def test_segments_of_unlike_types_are_matched(before: list[Any], now: list[Any]) -> None:
    """1, 1.0, "1.0" and true are one value, named as in the reference; each has its reference's figures beside."""
    both = [one.assign(s=np.resize(values, len(one))) for one, values in ((REFERENCE, before), (CURRENT, now))]
    [window] = analyze(reference=both[0], current=both[1], segment="s", **ROLES).windows
    assert set(window.segments["s"]) == set(map(str, before))
    for group in window.segments["s"].values():
        assert group.rows == 500
        assert group.metrics["accuracy"].reference is not None


def test_segments_of_texts_are_what_they_say() -> None:
    """Versions 1 and 1.0 are two where both files have texts."""
    both = [one.assign(s=np.resize(["1", "1.0"], len(one))) for one in (REFERENCE, CURRENT)]
    [window] = analyze(reference=both[0], current=both[1], segment="s", **ROLES).windows
    assert [one.rows for one in window.segments["s"].values()] == [500, 500]
