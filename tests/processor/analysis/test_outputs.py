"""Rows of several outputs (multilabel): figures, drift of each output, and what is no such row."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no stubs of its own
import numpy as np
import pandas as pd
import pytest
from sklearn import datasets, metrics
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from mlspan_processor import Analysis, analyze
from mlspan_processor.analysis import AnalysisError, schema
from mlspan_processor.analysis.gate import compare_versions
from mlspan_processor.cli.main import main

NAMES = ("food", "music", "sport", "work")
LABEL = {name: f"y_{name}" for name in NAMES}
SAID = {name: f"said_{name}" for name in NAMES}
PROBABILITY = {name: f"p_{name}" for name in NAMES}
FEATURES = [f"f{i}" for i in range(5)]


@pytest.fixture(scope="module")
def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A reference and current rows of a one-versus-rest model, with a column for each output."""
    x, y = datasets.make_multilabel_classification(4000, 5, n_classes=4, n_labels=2, random_state=3)
    model = OneVsRestClassifier(LogisticRegression()).fit(x[:1000], y[:1000])
    frame = pd.DataFrame(x[1000:], columns=FEATURES)
    p, said = model.predict_proba(x[1000:]), model.predict(x[1000:])
    for k, name in enumerate(NAMES):
        frame[f"y_{name}"], frame[f"said_{name}"], frame[f"p_{name}"] = y[1000:, k], said[:, k], p[:, k]
    frame["half"] = np.where(np.arange(len(frame)) % 2, "odd", "even")
    return frame[:1500].reset_index(drop=True), frame[1500:].reset_index(drop=True)


def arrays(frame: pd.DataFrame) -> tuple[Any, Any, Any]:
    """Labels, predictions and probabilities as matrices."""
    return tuple(frame[list(columns.values())].to_numpy() for columns in (LABEL, SAID, PROBABILITY))  # type: ignore[return-value]


def scikit_learns(y: Any, said: Any, p: Any) -> dict[str, float]:
    """Every figure by scikit-learn."""
    return {
        "accuracy": metrics.accuracy_score(y, said),
        "hamming_loss": metrics.hamming_loss(y, said),
        **{f"{n}": getattr(metrics, f"{n}_score")(y, said, average="macro") for n in ("precision", "recall", "f1")},
        **{
            f"{n}_micro": getattr(metrics, f"{n}_score")(y, said, average="micro")
            for n in ("precision", "recall", "f1")
        },
        "roc_auc": metrics.roc_auc_score(y, p),
        "average_precision": metrics.average_precision_score(y, p),
        "log_loss": float(np.mean([metrics.log_loss(y[:, k], p[:, k]) for k in range(y.shape[1])])),
        "brier": float(np.mean([metrics.brier_score_loss(y[:, k], p[:, k]) for k in range(y.shape[1])])),
    }


def values(result: Analysis) -> dict[str, float | None]:
    """Realised figures of the only window."""
    return {name: one.realised for name, one in result.windows[0].metrics.items()}


def test_every_figure_is_scikit_learns(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """From labels, predictions and probabilities of each output; with bands, and the reference's beside."""
    reference, current = frames
    result = analyze(
        reference=reference, current=current, label=LABEL, prediction=SAID, probability=PROBABILITY, features=FEATURES
    )
    assert (result.task, result.classes) == ("multilabel", NAMES)
    expected = scikit_learns(*arrays(current))
    found = values(result)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    before = scikit_learns(*arrays(reference))
    window = result.windows[0]
    assert {name: window.metrics[name].reference for name in before} == pytest.approx(before, rel=1e-5)
    for name, one in window.metrics.items():
        assert one.labels == len(current)
        assert one.realised is not None, name
        assert one.realised_low is not None, name
        assert one.realised_high is not None, name
        assert one.realised_low <= one.realised <= one.realised_high
        assert one.estimated is None
        assert one.reason == (
            "estimated: undecidable, because estimates are made for binary, multiclass and regression models"
        )
    assert window.alerts == ()
    assert window.calibration is not None
    assert window.calibration["ece"] == found["ece"]
    assert list(window.calibration["outputs"]) == list(NAMES)
    document = json.loads(result.to_json())
    jsonschema.validate(document, schema())


def test_predictions_follow_from_probabilities(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """An output is predicted where its probability is above one half, and that is said."""
    reference, current = frames
    result = analyze(
        reference=reference,
        current=current,
        label=[f"{name}={column}" for name, column in LABEL.items()],
        probability=[f"{name}={column}" for name, column in PROBABILITY.items()],
        features=FEATURES,
    )
    y, said, p = arrays(current)
    assert (said == (p > 0.5)).all()
    assert values(result)["f1_micro"] == pytest.approx(metrics.f1_score(y, said, average="micro"))
    assert "predictions: every output with a probability above 0.5" in result.inferred
    assert "task multilabel: columns of 4 outputs" in result.inferred


def test_predictions_only(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Figures of probabilities have a reason then; booleans are indicators as well."""
    reference, current = (
        frame.assign(**{column: frame[column].astype(bool) for column in SAID.values()}) for frame in frames
    )
    result = analyze(
        reference=reference, current=current, task="multilabel", label=LABEL, prediction=SAID, features=FEATURES
    )
    y, said, _ = arrays(current)
    found = result.windows[0].metrics
    assert found["hamming_loss"].realised == pytest.approx(metrics.hamming_loss(y, said))
    assert found["roc_auc"].realised is None
    assert "realised: undecidable, because there are no probabilities" in found["roc_auc"].reason
    assert result.windows[0].calibration is None
    assert "there are no probabilities" in result.windows[0].outputs["food"]["score"].reason


def test_lists_of_names_are_outputs(frames: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    """One column of lists is the same as a column for each output; an empty list is a row without any."""
    paths = []
    for i, frame in enumerate(frames):
        y, said, _ = arrays(frame)
        lists = {
            key: pd.Series([[NAMES[k] for k in np.flatnonzero(row)] for row in table], dtype=object)
            for key, table in (("y", y), ("said", said))
        }
        paths.append(tmp_path / f"{i}.parquet")
        frame[FEATURES].assign(**lists).to_parquet(paths[-1])
    result = analyze(reference=paths[0], current=paths[1], label="y", prediction="said")
    y, said, _ = arrays(frames[1])
    assert result.classes == NAMES
    assert values(result)["accuracy"] == pytest.approx(metrics.accuracy_score(y, said))
    assert values(result)["f1"] == pytest.approx(metrics.f1_score(y, said, average="macro"))


def test_a_missing_label_leaves_the_row_out(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """A row counts when the truth of all of its outputs is known; those known in part are counted in a note."""
    reference, current = frames
    current = current.assign(y_food=current["y_food"].astype(float), y_work=current["y_work"].astype(float))
    current.loc[:99, "y_food"] = np.nan
    current.loc[50:149, "y_work"] = np.nan
    options: dict[str, Any] = {"prediction": SAID, "features": FEATURES}
    result = analyze(reference=reference, current=current, label=LABEL, **options)
    y, said, _ = arrays(frames[1][150:])
    assert result.windows[0].metrics["accuracy"].labels == len(current) - 150
    assert values(result)["hamming_loss"] == pytest.approx(metrics.hamming_loss(y, said))
    assert "current: labels of some outputs only are not used: 150 of 1,500 rows" in result.notes


def test_drift_of_each_output(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """One output that is predicted far more often: its drift, one alert that names it, and no other."""
    reference, current = frames
    rows = np.flatnonzero(np.random.default_rng(0).random(len(current)) < 0.5)
    current = current.copy()
    current.loc[rows, "p_sport"] = 0.9
    result = analyze(
        reference=reference, current=current, label=LABEL, probability=PROBABILITY, features=FEATURES, every="750rows"
    )
    assert len(result.windows) == 2
    for window in result.windows:
        drifted = {(name, role) for name, roles in window.outputs.items() for role, one in roles.items() if one.drifted}
        assert drifted == {("sport", "prediction"), ("sport", "score")}
        assert window.prediction.drifted is None
        assert "there are several outputs" in window.prediction.reason
        told = {one.kind: one for one in window.alerts}
        assert set(told) == {"realised", "prediction_drift"}
        assert told["prediction_drift"].subject == "prediction of sport, score of sport"
        assert told["prediction_drift"].message.startswith("predictions of sport have shifted: share of ")
        assert "roc_auc" in told["realised"].message
        assert window.metrics["f1_micro"].realised < window.metrics["f1_micro"].reference  # type: ignore[operator]
    assert len(result.incidents) == 1
    jsonschema.validate(json.loads(result.to_json()), schema())


def test_segments_and_fairness(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Each value of a segment has the figures of its rows; groups are not compared, and the reason is told."""
    reference, current = frames
    result = analyze(
        reference=reference, current=current, label=LABEL, prediction=SAID, segment="half", features=FEATURES
    )
    y, said, _ = arrays(current[current["half"] == "odd"])
    group = result.windows[0].segments["half"]["odd"]
    assert group.rows == len(y)
    assert group.metrics["f1_micro"].realised == pytest.approx(metrics.f1_score(y, said, average="micro"))
    gaps = result.windows[0].fairness["half"]["gaps"]
    assert {one["value"] for one in gaps.values()} == {None}
    assert all("undecidable, because the task is multilabel" in one["reason"] for one in gaps.values())


def test_an_output_that_never_holds(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Ranking figures average the outputs with labels both ways, as scikit-learn would of these alone; with none of
    them they are undecidable."""
    reference, current = (frame.assign(y_food=0) for frame in frames)
    options: dict[str, Any] = {"label": LABEL, "probability": PROBABILITY, "features": FEATURES}
    result = analyze(reference=reference, current=current, **options)
    y, _, p = arrays(current)
    assert values(result)["roc_auc"] == pytest.approx(metrics.roc_auc_score(y[:, 1:], p[:, 1:]), rel=1e-5)
    nothing = dict.fromkeys(LABEL.values(), 0)
    result = analyze(reference=reference, current=current.assign(**nothing), **options)
    found = result.windows[0].metrics
    assert found["roc_auc"].reason.startswith("realised: undecidable, because there are labels of one class only")
    assert found["recall_micro"].reason.startswith("realised: undecidable, because no label has any output")
    assert found["hamming_loss"].realised == pytest.approx((p > 0.5).mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": {"food": "y_food", "work": "y_wrok"}}, '--label "y_wrok": neither file has .*"y_work"'),
        ({"label": ["y_food", "y_work"]}, "--label names several columns: name the output of each"),
        ({"label": ["food=y_food", "food=y_work"]}, '--label names the output "food" twice'),
        ({"label": {"food": "y_food", "work": "y_food"}}, 'column "y_food" is named twice as label'),
        ({"label": LABEL, "task": "binary"}, '--task "binary": the columns are of several outputs'),
        ({"label": "y_food", "task": "multilabel"}, "--label: a multilabel model needs a column of 0 and 1"),
        ({"label": {"food": "y_food"}}, "1 outputs: a multilabel model has at least 2"),
        ({"label": LABEL, "probability": {"food": "p_food"}}, 'the output "music" is not named everywhere'),
        ({"label": LABEL, "probability": "p_food"}, "name the output of each probability"),
        ({"label": LABEL, "prediction": PROBABILITY}, "of output .* must hold 0 and 1, or booleans; a probability is"),
        ({"label": {**LABEL, "food": "half"}}, 'of the label of output "food" holds "even"; must hold 0 and 1'),
        ({"task": "multilabel"}, "0 outputs: a multilabel model has at least 2"),
    ],
)
def test_columns_that_do_not_fit(
    frames: tuple[pd.DataFrame, pd.DataFrame], options: dict[str, Any], message: str
) -> None:
    """Each misuse is an error that names the option, the value and what would do."""
    with pytest.raises(AnalysisError, match=message):
        analyze(reference=frames[0], current=frames[1], features=FEATURES, **options)


def test_check_compares_on_the_same_metrics(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Micro F1 decides; a challenger that errs in half of its rows is worse; both values are scikit-learn's."""
    champion = frames[1].assign(id=np.arange(len(frames[1])))
    challenger = champion.copy()
    flipped = np.flatnonzero(np.random.default_rng(1).random(len(champion)) < 0.5)
    challenger.loc[flipped, "said_food"] = 1 - challenger.loc[flipped, "said_food"]
    gate = compare_versions(champion=champion, challenger=challenger, label=LABEL, prediction=SAID, id="id")
    assert (gate.outcome, gate.task, gate.paired) == ("fail", "multilabel", True)
    assert [name for name, one in gate.metrics.items() if one.decides] == ["f1_micro"]
    for one, which in (
        (gate.metrics["f1_micro"].champion, champion),
        (gate.metrics["f1_micro"].challenger, challenger),
    ):
        y, said, _ = arrays(which)
        assert one == pytest.approx(metrics.f1_score(y, said, average="micro"))
    same = compare_versions(champion=champion, challenger=champion, label=LABEL, prediction=SAID, id="id")
    assert same.outcome == "pass"


def test_commands(
    frames: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mlspan analyze` and `mlspan check` over CSV: exit status, JSON, and a table with the key metric."""
    for name, frame in zip(("reference", "current"), frames, strict=True):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    columns = ["--task", "multilabel"]
    columns += ["--label", *(f"{name}={column}" for name, column in LABEL.items())]
    for name, column in PROBABILITY.items():
        columns += ["--probability", f"{name}={column}"]
    files = ["--reference", str(tmp_path / "reference.csv"), "--current", str(tmp_path / "current.csv")]
    assert (
        main(["analyze", *files, *columns, "--features", ",".join(FEATURES), "--json", str(tmp_path / "o.json")]) == 0
    )
    text = capsys.readouterr().out
    assert "multilabel model" in text
    assert "f1_micro" in text
    document = json.loads((tmp_path / "o.json").read_text())
    y, said, _ = arrays(frames[1])
    assert document["windows"][0]["metrics"]["f1_micro"]["realised"] == pytest.approx(
        metrics.f1_score(y, said, average="micro")
    )
    files = ["--champion", str(tmp_path / "current.csv"), "--challenger", str(tmp_path / "current.csv")]
    assert main(["check", *files, *columns, "--margin", "0.01"]) == 1
    assert "undecided" in capsys.readouterr().out
    assert main(["check", *files, *columns]) == 0
