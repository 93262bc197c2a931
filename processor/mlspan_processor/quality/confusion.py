"""Stage 5: what follows from a confusion matrix: figures, their bands, and each cell's influence on them.

In: (65, 65) weighted counts, rows true class, columns predicted class, the last of both any other class. Precision,
recall, specificity and F1 are of the last class for two classes, else macro averages over the classes that occur as
label or prediction, where a class without predictions or labels counts 0 (scikit-learn's zero_division=0). Balanced
accuracy is the mean recall of the classes that labels have; Matthews' correlation is Gorodkin's (Comput. Biol. Chem.
28, 2004) for more than two. The influence of a cell is how much the figure gains per share of rows that move there; the
figures are ratios of counts, so that influences average to 0 and their mean square over n is the variance (delta
method).
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.quality.bands import Interval, average, dice, share, signed, wider
from mlspan_processor.quality.base import Figure

Matrix = NDArray[np.float64]
NAMES: Final = ("accuracy", "precision", "recall", "specificity", "f1", "balanced_accuracy", "mcc")
_NO_MCC: Final = "labels or predictions of one class only"


class _Parts(NamedTuple):
    """A matrix as shares: its total, `right` (k,) on the diagonal, `true` and `said` (k,), which classes `occur`, and
    each class's `part` (k,) in averages."""

    total: float
    right: Matrix
    true: Matrix
    said: Matrix
    occur: NDArray[np.bool_]
    part: Matrix


def _parts(matrix: Matrix, n_classes: int) -> _Parts:
    total = float(matrix.sum())
    p = matrix / total
    right = np.diag(p).copy()
    right[-1] = 0.0  # two classes beyond the matrix are not known to be the same
    true, said = p.sum(axis=1), p.sum(axis=0)
    occur = (true > 0) | (said > 0)
    part = np.zeros(len(p))
    if n_classes == 2:
        part[1] = 1.0
    else:
        part[occur] = 1.0 / occur.sum()
    return _Parts(total, right, true, said, occur, part)


def figures(matrix: Matrix, n_classes: int) -> dict[str, Figure]:
    """Every figure, or why there is none."""
    if matrix.sum() <= 0:
        return dict.fromkeys(NAMES, Figure(None, "no labelled predictions"))
    _, right, true, said, _, part = _parts(matrix, n_classes)
    result = {"accuracy": Figure(float(right.sum()))}
    result["precision"] = Figure(float(part @ _ratio(right, said)))
    result["recall"] = Figure(float(part @ _ratio(right, true)))
    result["specificity"] = Figure(float(part @ _ratio(1 - true - said + right, 1 - true)))
    result["f1"] = Figure(float(part @ _ratio(2 * right, true + said)))
    labelled = true > 0
    if n_classes == 2:
        if said[1] <= 0:
            result["precision"] = Figure(None, "the last class was never predicted")
        if true[1] <= 0:
            result["recall"] = Figure(None, "no label of the last class")
        if true[1] + said[1] <= 0:
            result["f1"] = Figure(None, "no label of the last class")
        if 1 - true[1] <= 1e-12:
            result["specificity"] = Figure(None, "no label of the first class")
    elif labelled.sum() < 2:
        result["specificity"] = Figure(None, "labels of one class only")
    if labelled.sum() < 2:
        result["balanced_accuracy"] = Figure(None, "labels of one class only")
    else:
        result["balanced_accuracy"] = Figure(float(_ratio(right, true)[labelled].mean()))
    spread = (1 - said @ said) * (1 - true @ true)
    result["mcc"] = Figure(float((right.sum() - true @ said) / np.sqrt(spread))) if spread > 1e-15 else _none(_NO_MCC)
    return {name: result[name] for name in NAMES}


def intervals(matrix: Matrix, n_classes: int, ratio: float) -> dict[str, Interval]:
    """The bands of the figures that have a value; `ratio`: effective rows per weighted row."""
    found = figures(matrix, n_classes)
    values = {name: figure.value for name, figure in found.items() if figure.value is not None}
    if not values:
        return {}
    total, right, true, said, _, part = _parts(matrix, n_classes)
    n = total * ratio
    rules: dict[str, Interval] = {"accuracy": share(values["accuracy"], n)}
    recalls, precisions = _ratio(right, true), _ratio(right, said)
    labelled = true > 0
    if "balanced_accuracy" in values:
        k = 1 / labelled.sum()
        rules["balanced_accuracy"] = average(
            [(k, r, share(r, t * n)) for r, t in zip(recalls[labelled].tolist(), true[labelled].tolist(), strict=True)]
        )
    gains = influences(matrix, n_classes)
    variances = {name: float(((matrix / total) * gain**2).sum()) / n for name, gain in gains.items()}
    if "mcc" in values:
        rules["mcc"] = signed(values["mcc"], n, variances["mcc"])
    if n_classes == 2:
        rows = {"precision": said[1], "recall": true[1], "specificity": 1 - true[1]}
        rules |= {name: share(values[name], rows[name] * n) for name in rows if name in values}
        if "f1" in values:
            rules["f1"] = dice(values["f1"], (true[1] + said[1] - right[1]) * n)
    else:
        used = part > 0
        # A class without labels, or never predicted, counts 0 by convention: where it will end is unknown.
        for name, shares, base in (("precision", precisions, said), ("recall", recalls, true)):
            cells = zip(part[used].tolist(), shares[used].tolist(), base[used].tolist(), strict=True)
            rules[name] = average([(weight, one, share(one, rows * n)) for weight, one, rows in cells])
        rules["f1"] = wider(
            _of_f1(part[used], right[used], (true + said)[used], n), share(values["f1"], n, variances["f1"])
        )
        if "specificity" in values:
            rules["specificity"] = share(values["specificity"], n, variances["specificity"])
    return {name: rules[name] for name in NAMES if name in values}


def _of_f1(part: Matrix, right: Matrix, both: Matrix, n: float) -> Interval:
    """Mean of the classes' F1 as if their rows were separate."""
    cells = zip(part.tolist(), right.tolist(), both.tolist(), strict=True)
    return average([(weight, 2 * hit / sums, dice(2 * hit / sums, (sums - hit) * n)) for weight, hit, sums in cells])


def influences(matrix: Matrix, n_classes: int) -> dict[str, Matrix]:
    """(65, 65) influence of each cell on each figure; 0 where the figure has no value."""
    _, right, true, said, _, part = _parts(matrix, n_classes)
    side = len(right)
    hit = np.eye(side)
    hit[-1, -1] = 0.0
    recalls, precisions = _ratio(right, true), _ratio(right, said)
    f1, both = _ratio(2 * right, true + said), true + said
    labelled = true > 0
    per_label = _ratio(labelled / max(1, labelled.sum()), true)
    # Class c's specificity looks at rows of other classes: those said to be c lower it.
    other = 1 - true
    per_other = _ratio(part, other)
    missed = per_other * (1 - _ratio(1 - true - said + right, other))
    specificity = missed.sum() - missed[:, None] - (1 - np.eye(side)) * per_other
    lift = part * _ratio(f1, both)
    return {
        "accuracy": hit - right.sum(),
        "precision": _ratio(part, said) * (hit - precisions),
        "recall": _ratio(part, true)[:, None] * (hit - recalls[:, None]),
        "specificity": specificity,
        "f1": 2 * hit * _ratio(part, both)[:, None] - lift[:, None] - lift,
        "balanced_accuracy": per_label[:, None] * (hit - recalls[:, None]),
        "mcc": _of_mcc(hit, right, true, said),
    }


def _of_mcc(hit: Matrix, right: Matrix, true: Matrix, said: Matrix) -> Matrix:
    a, b = 1 - said @ said, 1 - true @ true
    if a * b <= 1e-15:
        return np.zeros_like(hit)
    root = np.sqrt(a * b)
    value = (right.sum() - true @ said) / root
    gain = (hit - true - said[:, None]) / root + value * (said / a + true[:, None] / b)
    # Written with shares, the formula is not free of the total: take the mean off.
    mean = (right.sum() - 2 * true @ said) / root + value * (said @ said / a + true @ true / b)
    return np.asarray(gain - mean)


def _ratio(top: Matrix, bottom: Matrix) -> Matrix:
    """top / bottom, 0 where there is nothing."""
    return np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 1e-15)


def _none(reason: str) -> Figure:
    return Figure(None, reason)
