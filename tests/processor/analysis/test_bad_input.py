"""Odd data has a defined outcome: a reason in place of a number, never a crash, never a number that means nothing."""

import math
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no stubs of its own
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlspan_processor import Analysis, analyze
from mlspan_processor.analysis import AnalysisError, schema
from tests.processor.analysis.frames import classified


@pytest.fixture
def reference() -> pd.DataFrame:
    """500 rows of a calibrated model."""
    return classified(np.random.default_rng(0), 500)


@pytest.fixture
def current() -> pd.DataFrame:
    """300 more."""
    return classified(np.random.default_rng(1), 300)


def result_of(reference: Any, current: Any, **options: Any) -> Analysis:
    """The analysis, after its JSON was found to be strict and as the schema says."""
    result = analyze(reference=reference, current=current, **{"probability": "p", "label": "y", **options})
    document = result.to_dict()
    jsonschema.validate(document, schema())

    def finite(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                finite(item)
        elif isinstance(value, list):
            for item in value:
                finite(item)
        elif isinstance(value, float):
            assert math.isfinite(value)

    finite(document)
    assert "NaN" not in result.to_json()
    return result


def test_one_class_only(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Labels of one class: accuracy is one, the area under the curve has a reason; in the reference as well."""
    metrics = result_of(reference, current.assign(y=1)).windows[0].metrics
    assert metrics["accuracy"].realised is not None
    assert metrics["roc_auc"].realised is None
    assert "realised: undecidable, because there are labels of one class only" in metrics["roc_auc"].reason
    result = result_of(reference.assign(y=1), current)
    assert result.classes == ("0", "1")
    assert result.windows[0].metrics["roc_auc"].reference is None


def test_constant_and_empty_features(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """A constant that stays is quiet, one that changes has drifted; a column that is empty in both says nothing."""
    same = result_of(reference.assign(c=5.0, e=np.nan), current.assign(c=5.0, e=np.nan)).windows[0]
    assert same.features["c"].drifted is False
    assert same.features["c"].wasserstein is None
    assert same.features["c"].reason
    assert same.features["c"].reason == "wasserstein: undecidable, because the reference is constant"
    empty = same.features["e"]
    assert (empty.drifted, empty.psi, empty.p_value) == (None, None, None)
    assert empty.reason == "undecidable, because all values are missing"
    changed = result_of(reference.assign(c=5.0), current.assign(c=6.0)).windows[0]
    assert changed.features["c"].drifted is True
    assert [(one.kind, one.subject) for one in changed.alerts] == [("feature_drift", "c")]
    assert "100.0% are outside the reference's 5 to 5" in changed.alerts[0].message
    gone = result_of(reference, current.assign(x1=np.nan)).windows[0]
    assert [one.subject for one in gone.alerts] == ["x1"]
    assert gone.features["x1"].missing == 1.0


def test_all_infinite_or_text_features(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Infinities are values beyond the range; a column of mixed objects is text."""
    window = result_of(reference, current.assign(x1=np.inf)).windows[0]
    assert window.features["x1"].drifted is True
    mixed: list[Any] = [1, "a", None, 2.5, {"a": 1}]
    both = [frame.assign(m=np.resize(np.array(mixed, object), len(frame))) for frame in (reference, current)]
    assert result_of(*both).windows[0].features["m"].type == "categorical"


def test_labels_that_are_all_missing(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """No label yet: realised performance is None with a reason, drift and the rest stand."""
    metric = result_of(reference, current.assign(y=np.nan)).windows[0].metrics["accuracy"]
    assert (metric.realised, metric.labels) == (None, 0)
    assert "realised: undecidable, because there are no labelled predictions" in metric.reason
    metric = result_of(reference.drop(columns="y"), current).windows[0].metrics["accuracy"]
    assert metric.estimated is None
    assert "estimated: undecidable, because the reference has no labels" in metric.reason
    assert metric.reference is None


def test_probabilities_that_are_none(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Percentages, or rows that do not sum to 1, are not used; a few of them cost only their rows; a reference that has
    more has no figures of them."""
    window = result_of(reference, current.assign(p=current["p"] * 100)).windows[0]
    for name in ("roc_auc", "log_loss", "brier"):
        assert window.metrics[name].realised is None
        assert "of the probabilities of the window lie outside [0, 1]" in window.metrics[name].reason
    few = current.copy()
    few.loc[:4, "p"] = [-1.0, 2.0, 1.5, np.inf, -0.1]
    result = result_of(reference, few)
    assert result.windows[0].metrics["log_loss"].labels == 295
    assert any("lie outside [0, 1] are not used: 5 of 300" in note for note in result.notes)
    metric = result_of(reference.assign(p=reference["p"] * 100), current).windows[0].metrics["roc_auc"]
    assert (metric.reference, metric.realised is None) == (None, False)
    assert "of the probabilities of reference lie outside [0, 1]" in metric.reason
    both = [frame.assign(q=frame["p"]) for frame in (reference, current)]
    result = result_of(*both, probability=["1=p", "0=q"])
    assert "do not sum to 1" in result.windows[0].metrics["log_loss"].reason


@pytest.mark.parametrize("derived", [True, False])
def test_probabilities_that_are_none_in_one_window(
    reference: pd.DataFrame, current: pd.DataFrame, derived: bool
) -> None:
    """A window with over a tenth of invalid probabilities says so and has no figures of them; the others have theirs,
    and with a tenth or less only those rows are left out."""
    reference, current = (frame.assign(said=(frame["p"] > 0.5).astype(int)) for frame in (reference, current))
    current.loc[:59, "p"] = 7.0
    current.loc[100:109, "p"] = -7.0
    options: dict[str, Any] = {} if derived else {"prediction": "said"}
    first, second, third = result_of(reference, current, every="100rows", features=["x0"], **options).windows
    why = "undecidable, because 60% of the probabilities of the window lie outside [0, 1]"
    for name in ("roc_auc", *(["accuracy"] if derived else [])):
        assert first.metrics[name].realised is None
        assert first.metrics[name].reason.startswith(f"realised: {why}")
        assert [one.metrics[name].labels for one in (second, third)] == [90, 100]
        assert None not in {one.metrics[name].realised for one in (second, third)}
    if not derived:
        assert [one.metrics["accuracy"].labels for one in (first, second, third)] == [100, 100, 100]
    [alert] = first.alerts
    assert (alert.kind, alert.severity) == ("data_quality", "critical")
    assert alert.message.endswith("60% of the probabilities of the window lie outside [0, 1]")
    assert (second.alerts, third.alerts) == ((), ())


@pytest.mark.parametrize("rows", [1, 2, 50, 99])
def test_a_small_reference(reference: pd.DataFrame, current: pd.DataFrame, rows: int) -> None:
    """Fewer than 100 reference rows: nothing is compared with them, realised performance is still told."""
    result = result_of(reference[:rows], current.assign(x0=100.0), task="binary")
    window = result.windows[0]
    assert window.alerts == () or {one.kind for one in window.alerts} <= {"realised"}
    assert window.features["x0"].drifted is None
    assert window.features["x0"].reason.startswith("undecidable, because the reference has")
    assert window.metrics["accuracy"].realised is not None


@pytest.mark.parametrize("rows", [1, 2, 29])
def test_a_small_window(reference: pd.DataFrame, current: pd.DataFrame, rows: int) -> None:
    """A handful of rows decides nothing and alerts nothing."""
    window = result_of(reference, current[:rows].assign(x0=100.0)).windows[0]
    assert window.alerts == ()
    assert window.features["x0"].drifted is None
    assert window.features["x0"].reason.startswith("undecidable, because the window has")


def test_columns_that_are_gone_new_or_retyped(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """A missing and a retyped column are one alert and have a reason each; a new one is a note."""
    changed = current.drop(columns="x1").assign(x2="text", extra=1.0, kind=7)
    result = result_of(reference, changed)
    window = result.windows[0]
    [alert] = window.alerts
    assert (alert.kind, alert.severity) == ("data_quality", "critical")
    assert alert.subject == "x1, x2, kind"
    assert "x1: current lacks the column" in alert.message
    assert window.features["x1"].reason == "undecidable, because current lacks the column"
    assert "is text now" in window.features["x2"].reason
    assert "was" in window.features["kind"].reason
    assert window.features["x0"].drifted is False
    assert any("columns that the reference lacks; not looked at: extra" in note for note in result.notes)


def test_numbers_written_as_text(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Texts that read as numbers are numbers where the reference's are; the others count as missing."""
    texts = current["x1"].map("{:.6f}".format)
    texts[:3] = "n/k"
    found = result_of(reference, current.assign(x1=texts)).windows[0].features["x1"]
    assert found.drifted is False
    assert found.missing == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "multilabel"}, "a multilabel model needs a column of 0 and 1 for each output"),
        ({"task": "ranking"}, r'--task "ranking": must be one of binary, multiclass, multilabel, regression'),
        ({"label": "yy"}, r'--label "yy": neither file has this column; did you mean "y"\?'),
        ({"label": "Y"}, r'--label "Y": neither file has this column; did you mean "y"\?'),
        ({"label": "nothing"}, 'neither file has this column; there are "x0"'),
        ({"features": ["x0", "x9"]}, '--features "x9": reference has no such column; did you mean'),
        ({"features": ["x0", "x0"]}, "twice"),
        ({"features": ["x0", "y"]}, 'column "y" cannot be both label and a feature'),
        ({"prediction": "y"}, 'column "y" cannot be both'),
        ({"time": "x0", "label": "x0"}, "cannot be both"),
        ({"time": "kind"}, "is no ISO 8601 time"),
        ({"probability": "kind"}, "holds texts; must hold numbers"),
        ({"probability": ["1=p", "x0"]}, r"name the class of each probability"),
    ],
)
def test_columns_that_do_not_fit(
    reference: pd.DataFrame, current: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    """Each misuse is an error that names the option, the column and the nearest that there is."""
    with pytest.raises(AnalysisError, match=message):
        result_of(reference, current, **options)


def test_labels_that_repeat_or_contradict(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Of rows with one id the first counts, with its label; the others are counted in a note."""
    once, named = reference.assign(i=range(500)), current.assign(i=range(300))
    alone = result_of(once, named, id="i").windows[0].metrics["accuracy"]
    for again, note in (
        (named, "300 repetitions left out"),
        (named.assign(y=1 - named["y"]), "300 of them with another"),
    ):
        result = result_of(once, pd.concat([named, again]), id="i")
        assert result.windows[0].metrics["accuracy"] == alone
        assert any(note in one for one in result.notes)


def test_clocks_that_jump(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """A row of 1970 and one of 2199 are windows of their own that decide nothing; one without a time is in none."""
    times = pd.Series(pd.date_range("2024-01-01", periods=300, freq="min"))
    times = times.replace({times[100]: pd.Timestamp("1970-01-01"), times[101]: pd.Timestamp("2199-01-01")})
    times = times.where(times.index != 102)
    result = result_of(reference.assign(t=pd.Timestamp("2023-12-31")), current.assign(t=times), time="t", every="1d")
    assert [window.rows for window in result.windows] == [1, 297, 1]
    for window in (result.windows[0], result.windows[2]):
        assert window.alerts == ()
        assert window.features["x0"].reason.startswith("undecidable, because the window has 1 rows")
        assert "estimated: undecidable, because " in window.metrics["accuracy"].reason
    assert "rows without a time are in no window: 1 of 300" in result.notes[0]


def test_a_column_of_indicators_as_label(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """A column of lists of 0 and 1 as label: the error says what to do instead."""
    both = [frame.assign(y=pd.Series([[0, 1]] * len(frame), frame.index, object)) for frame in (reference, current)]
    with pytest.raises(AnalysisError, match=r'column "y" holds lists of 0 and 1; .* a column for each output'):
        result_of(*both)


@pytest.mark.parametrize(
    "values", [pa.array([[1.0, 2.0]] * 300), pa.array([{"a": 1}] * 300), pa.array([7] * 300, pa.time32("s"))]
)
def test_columns_that_hold_neither_numbers_nor_texts(
    reference: pd.DataFrame, current: pd.DataFrame, values: Any
) -> None:
    """Lists, structures and times of day are no features, and no alert: that is said, and naming one gives a reason."""
    both = [
        pa.Table.from_pandas(frame, preserve_index=False).append_column("v", values[: len(frame)])
        for frame in (reference.head(300), current)
    ]
    result = result_of(*both)
    assert "v" not in result.windows[0].features
    assert any(f"neither numbers nor texts are not looked at: v ({values.type})" in note for note in result.notes)
    named = result_of(*both, features=["x0", "v"]).windows[0]
    assert "are not captured" in named.features["v"].reason
    assert named.alerts == ()
