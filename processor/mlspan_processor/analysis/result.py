"""Batch, the result: what `analyze` returns, frozen, and its JSON (schema.json describes it).

Every figure is a number or None; a None has its reason beside it. `to_json` is strict JSON: no NaN, no infinity. Times
are RFC 3339 in UTC where the file has a time column, else windows are told by row numbers, the end not included.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final, Literal, get_args

import orjson

Number = float | None
Moment = str | int
"""RFC 3339, or a row number."""
AlertKind = Literal[
    "realised",
    "estimated",
    "prediction_drift",
    "label_drift",
    "data_quality",
    "feature_drift",
    "multivariate_drift",
]
ALERT_KINDS: Final[tuple[AlertKind, ...]] = get_args(AlertKind)
"""In order of importance."""
Severity = Literal["info", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of performance in one window.

    Attributes:
        realised: from labels; `realised_low`, `realised_high` its own 95 % band.
        estimated: without labels; `low`, `high` the 95 % band for what labels would give.
        labels: rows with a label.
        reference: the realised value in the reference; `reference_low`, `reference_high` its 95 % band.
        method: how it was estimated.
        reason: why realised or estimated is None.
    """

    realised: Number = None
    estimated: Number = None
    low: Number = None
    high: Number = None
    labels: int = 0
    realised_low: Number = None
    realised_high: Number = None
    reference: Number = None
    reference_low: Number = None
    reference_high: Number = None
    method: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """Drift of one feature, of the predictions, of the score or of the labels.

    Attributes:
        type: numeric, boolean or categorical.
        psi, js, ks, wasserstein, chi2: the distances of docs/metrics.md; ks and wasserstein for numbers only.
        p_value: of the column alone; `p_adjusted` corrected over all columns of the window.
        effect: how large the shift is, its expectation without drift taken off.
        drifted: significant and large enough; None where nothing can be said.
        missing, reference_missing, unseen: shares of the rows.
        reason: why a figure is None.
    """

    type: str = ""
    psi: Number = None
    js: Number = None
    ks: Number = None
    wasserstein: Number = None
    chi2: Number = None
    p_value: Number = None
    p_adjusted: Number = None
    effect: Number = None
    drifted: bool | None = None
    missing: Number = None
    reference_missing: Number = None
    unseen: Number = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Multivariate:
    """Drift of the features together."""

    statistic: Number = None
    p_value: Number = None
    effect: Number = None
    drifted: bool | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """What a person is told.

    Attributes:
        kind: see ALERT_KINDS.
        severity: warning, or critical for performance that labels prove to have fallen far.
        subject: the metric or the columns that it is about.
        message: a sentence with its numbers.
        value, reference: of the window and of the reference.
        effect: their difference, or the largest effect of the columns.
        p_value: how likely chance alone would do this.
    """

    kind: AlertKind
    severity: Severity
    subject: str
    message: str
    value: Number = None
    reference: Number = None
    effect: Number = None
    p_value: Number = None


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one value of a segment column: how many, and their metrics."""

    rows: int
    metrics: Mapping[str, Metric]


@dataclass(frozen=True, slots=True)
class Window:
    """One window.

    Attributes:
        start, end: see Moment; of windows of rows with times, the first and the last row's time.
        rows: in it; `sampled_rows` those that drift and estimates rest on, fewer in very large windows.
        metrics: by name.
        features: drift by name; `prediction`, `score` and `label` that of the answers.
        outputs: that of the answers by output and role, of a multilabel model.
        multivariate: of the features together.
        segments: metrics by segment column and value; `fairness` by segment column, for two classes.
        calibration: of the probabilities against the labels.
        alerts: most important first; empty means quiet.
    """

    start: Moment
    end: Moment
    rows: int
    sampled_rows: int
    metrics: Mapping[str, Metric]
    features: Mapping[str, ColumnDrift]
    prediction: ColumnDrift
    score: ColumnDrift
    label: ColumnDrift
    multivariate: Multivariate
    outputs: Mapping[str, Mapping[str, ColumnDrift]] = field(default_factory=dict)
    segments: Mapping[str, Mapping[str, Group]] = field(default_factory=dict)
    fairness: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    alerts: tuple[Alert, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The window as JSON takes it."""
        return {
            "start": self.start,
            "end": self.end,
            "rows": self.rows,
            "sampled_rows": self.sampled_rows,
            "metrics": {name: _plain(one) for name, one in self.metrics.items()},
            "drift": {
                "features": {name: _plain(one) for name, one in self.features.items()},
                "prediction": _plain(self.prediction),
                "score": _plain(self.score),
                "label": _plain(self.label),
                "multivariate": _plain(self.multivariate),
                **({"outputs": _plain(self.outputs)} if self.outputs else {}),
            },
            "segments": _plain(self.segments),
            "fairness": _plain(self.fairness),
            "calibration": _plain(self.calibration),
            "alerts": [_plain(one) for one in self.alerts],
        }


@dataclass(frozen=True, slots=True)
class Incident:
    """Alerts of neighbouring windows about the same trouble, as one.

    Attributes:
        id: 32 hex digits, the same for the same files.
        start: start of the first window that was bad; `end` end of the last one.
        status: open while the last windows are still bad, else closed.
        severity: the worst.
        subjects: what it is about, most important first.
        summary: one or two sentences.
    """

    id: str
    start: Moment
    end: Moment
    status: Literal["open", "closed"]
    severity: Severity
    subjects: tuple[str, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """The whole result.

    Attributes:
        task: binary, multiclass, multilabel or regression; None without label, prediction and probability.
        classes: texts, the positive one of two last; the outputs' names for multilabel.
        reference, current: name and rows of the files; of the reference also its metrics.
        windows: in order.
        incidents: over the windows.
        inferred: what was concluded rather than said.
        notes: what a person should know: rows left out, columns that cannot be compared.
    """

    task: str | None
    classes: tuple[str, ...]
    reference: Mapping[str, Any]
    current: Mapping[str, Any]
    windows: tuple[Window, ...]
    incidents: tuple[Incident, ...]
    inferred: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def alerted(self) -> tuple[Window, ...]:
        """The windows with an alert."""
        return tuple(window for window in self.windows if window.alerts)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON takes it."""
        result: dict[str, Any] = {"task": self.task}
        if self.task is None:
            result["reason"] = "no label, prediction or probability column was named"
        return {
            **result,
            "classes": list(self.classes),
            "reference": _plain(self.reference),
            "current": _plain(self.current),
            "inferred": list(self.inferred),
            "notes": list(self.notes),
            "windows": [window.to_dict() for window in self.windows],
            "incidents": [_plain(one) for one in self.incidents],
        }

    def to_json(self, indent: bool = True) -> str:
        """The result as JSON text."""
        return orjson.dumps(self.to_dict(), option=orjson.OPT_INDENT_2 if indent else 0).decode()


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of `to_dict`."""
    text = files("mlspan_processor.analysis").joinpath("schema.json").read_text("utf-8")
    return dict(orjson.loads(text))


def moment(ns_or_row: int, timed: bool) -> Moment:
    """A time in nanoseconds as RFC 3339, or a row number as it is.

    >>> moment(1_700_000_000_500_000_000, True)
    '2023-11-14T22:13:20.500000Z'
    """
    if not timed:
        return ns_or_row
    seconds, nanoseconds = divmod(ns_or_row, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000).isoformat()
    return text.replace("+00:00", "Z")


def number(value: Any) -> Number:
    """A finite number, or None."""
    if value is None:
        return None
    value = float(value)
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Dataclasses as mappings (empty reasons and methods left out), numbers finite, mappings with text keys."""
    if hasattr(value, "__dataclass_fields__"):
        pairs = ((one.name, getattr(value, one.name)) for one in fields(value))
        return {name: _plain(item) for name, item in pairs if not (name in {"reason", "method"} and item == "")}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    return number(value)
