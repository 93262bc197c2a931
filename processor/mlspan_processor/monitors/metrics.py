"""What a monitor can watch: METRICS is the table, one row for each.

A row says which kind of finding it makes (their order of importance is anomaly.incidents.KINDS), in which direction it
is bad, and which methods suit it, the default first. A figure of performance comes in two kinds, realised (from labels)
and estimated (without); the others have one.
"""

from typing import Final, Literal, NamedTuple

from mlspan_processor.anomaly.findings import Kind

Method = Literal["static", "history", "change_point", "joint", "drift", "risk", "versions"]
METHODS: Final[tuple[Method, ...]] = ("static", "history", "change_point", "joint", "drift", "risk", "versions")
CUSTOM: Final = "custom:"
"""What stands before the name of a user's own metric (entry point group mlspan_metric)."""
TOGETHER: Final = "multivariate_drift"
VERSIONS: Final = "version_difference"
_SERIES: Final[tuple[Method, ...]] = ("history", "static", "change_point", "joint")
_FIGURE: Final[tuple[Method, ...]] = ("history", "static", "change_point", "joint", "risk")
_DRIFT: Final[tuple[Method, ...]] = ("drift", "static", "history", "change_point", "joint")


class Watched(NamedTuple):
    """One metric.

    Attributes:
        kind: of its findings; of a performance figure that of the realised one.
        phrase: how a sentence names it.
        bad: which way it is bad to move.
        methods: those that suit it, the default first.
        unit: "share" (shown in percent), "s", "1/s", "rows" or "" for a plain number.
        by: what it is cut by beside the model version: "feature", "segment" or nothing.
    """

    kind: Kind
    phrase: str
    bad: Literal["low", "high", "both"]
    methods: tuple[Method, ...]
    unit: str = ""
    by: Literal["feature", "segment", ""] = ""


def _figure(phrase: str, bad: Literal["low", "high"], *methods: Method) -> Watched:
    return Watched("realised", phrase, bad, methods or _FIGURE, by="segment")


def _gap(phrase: str, bad: Literal["low", "high"]) -> Watched:
    return Watched("realised", phrase, bad, ("static", "history", "change_point", "joint"), by="feature")


METRICS: Final[dict[str, Watched]] = {
    "performance": _figure("performance (accuracy, mean absolute error, or Hamming loss)", "low", "risk", *_SERIES),
    "accuracy": _figure("accuracy", "low"),
    "precision": _figure("precision", "low"),
    "recall": _figure("recall", "low"),
    "f1": _figure("F1", "low"),
    "specificity": _figure("specificity", "low"),
    "balanced_accuracy": _figure("balanced accuracy", "low"),
    "mcc": _figure("Matthews correlation", "low"),
    "roc_auc": _figure("area under the ROC curve", "low"),
    "average_precision": _figure("average precision", "low"),
    "log_loss": _figure("log loss", "high"),
    "brier": _figure("Brier score", "high"),
    "ece": _figure("calibration error", "high"),
    "hamming_loss": _figure("Hamming loss", "high"),
    "precision_micro": _figure("micro precision", "low"),
    "recall_micro": _figure("micro recall", "low"),
    "f1_micro": _figure("micro F1", "low"),
    "mae": _figure("mean absolute error", "high"),
    "median_ae": _figure("median absolute error", "high"),
    "mape": _figure("mean absolute percentage error", "high"),
    "mse": _figure("mean squared error", "high"),
    "rmse": _figure("root mean squared error", "high"),
    "r2": _figure("R²", "low"),
    "demographic_parity_difference": _gap("difference in selection rates", "high"),
    "demographic_parity_ratio": _gap("ratio of selection rates", "low"),
    "equal_opportunity_difference": _gap("difference in true positive rates", "high"),
    "equalised_odds_difference": _gap("difference in true or false positive rates", "high"),
    VERSIONS: Watched("realised", "performance against versions before", "low", ("versions", *_SERIES)),
    "prediction_drift": Watched("prediction_drift", "drift of the answers", "high", _DRIFT),
    "drift": Watched("feature_drift", "drift of the features", "high", _DRIFT, by="feature"),
    TOGETHER: Watched("feature_drift", "drift of all features together", "high", _DRIFT),
    "missing": Watched("data_quality", "missing values", "high", _DRIFT, "share", "feature"),
    "unseen": Watched("data_quality", "values never seen before", "high", _DRIFT, "share", "feature"),
    "errors": Watched("errors", "calls that raise", "high", _SERIES, "share"),
    "latency": Watched("latency", "latency (95th percentile)", "high", _SERIES, "s"),
    "rate": Watched("rate", "calls a second", "both", _SERIES, "1/s"),
    "label_coverage": Watched("data_quality", "labelled share of the rows", "low", _SERIES, "share"),
}
FIGURES: Final = tuple(name for name, one in METRICS.items() if (one.kind, one.by) == ("realised", "segment"))
"""Those with two kinds, realised and estimated."""
GAPS: Final = tuple(name for name, one in METRICS.items() if (one.kind, one.by) == ("realised", "feature"))
"""Those between groups of people, whose "features" are the group attributes."""
RATES: Final = ("errors", "latency", "rate")
"""Those of calls, whose windows are durations."""


def watched(name: str) -> Watched:
    """The row of a metric.

    Raises:
        KeyError: there is none of this name.
    """
    if name.startswith(CUSTOM):
        return Watched("custom", name.removeprefix(CUSTOM), "both", _SERIES, by="segment")
    return METRICS[name]
