"""Stage 5: quality of a multilabel classifier: rows that may have none, one or several of the outputs.

accuracy (subset accuracy: all outputs right), Hamming loss, precision, recall and F1 (macro: mean over the outputs; and
micro: over all decisions), log loss and Brier score (mean over the outputs) are exact: those of scikit-learn on the
same (weighted) rows, zero_division=0. AUROC and average precision are macro averages over the outputs with labels both
ways, from histograms (ranking.py); the expected calibration error is the mean of the outputs' own. Rows with a NaN in
label or prediction are left out. Outputs of one row are not independent: bands of micro figures come from the rows'
sums (delta method), those of macro ones are conservative.
Memory: 24 bytes an output, 384 with scores, 16 a filled histogram bin; 32 outputs have scores, 1.1 MB at most.
Source: Tsoumakas & Katakis, Int. J. Data Warehous. Min. 3, 2007.
"""

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import SCORE_PROBABILITY
from mlspan_processor.quality.bands import Interval, average, share, together
from mlspan_processor.quality.base import MAX_SCORED_CLASSES, Figure, Labelled, Sums
from mlspan_processor.quality.calibration import BINS, Calibration, ReliabilityBin, bins_of
from mlspan_processor.quality.losses import Losses
from mlspan_processor.quality.ranking import ScoreCounts, ranked, ranked_intervals

_DECIDED: Final = (
    "f1_micro",
    "f1",
    "accuracy",
    "hamming_loss",
    "precision",
    "recall",
    "precision_micro",
    "recall_micro",
)
"""The most important first."""
# Of a ratio of sums over (hits, false alarms, misses): above and below the line.
MICRO: Final = {
    "precision_micro": ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0)),
    "recall_micro": ((1.0, 0.0, 0.0), (1.0, 0.0, 1.0)),
    "f1_micro": ((2.0, 0.0, 0.0), (2.0, 1.0, 1.0)),
}
_VALUES_AT_ONCE: Final = 1_000_000
_TOO_MANY: Final = f"undecidable, because probabilities of more than {MAX_SCORED_CLASSES} outputs are not kept"


class Multilabel(Sums):
    """Quality statistics of a classifier with these many outputs.

    Attributes:
        weight: weighted rows with labels and predictions.
        outcomes: (3, n_outputs) weighted hits, false alarms and misses of each output.
        products: (3, 3) weighted sums of products of each row's total hits, false alarms and misses.
        exact: weighted rows that are right in all outputs.
        calibrations: (n_scored, 3, 15) table of each output's Calibration.
    """

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        self.weight = 0.0
        self.outcomes = np.zeros((3, n_outputs))
        self.products = np.zeros((3, 3))
        self.exact = 0.0
        self.scores = ScoreCounts()
        self.losses = Losses()
        self.calibrations = np.zeros((min(n_outputs, MAX_SCORED_CLASSES), 3, BINS))
        self.too_wide = 0

    def __repr__(self) -> str:
        return f"Multilabel({self.n_outputs})"

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.outcomes.nbytes + self.products.nbytes + self.calibrations.nbytes + self.scores.nbytes + 136

    def update(self, batch: Labelled) -> None:
        """Add rows; those with a NaN label or neither predictions nor scores are left out."""
        has_score = np.zeros(len(batch.labels), bool) if batch.scores is None else ~np.isnan(batch.scores).any(axis=1)
        used = _known(batch.labels) & (_known(batch.predictions) | has_score)
        self.add_labelled(batch.weights[used])
        self.update_predictions(batch)
        self.update_scores(batch)

    def update_predictions(self, batch: Labelled) -> None:
        """Add only the predictions of rows whose scores were added before."""
        rows = np.flatnonzero(_known(batch.labels) & _known(batch.predictions))
        step = max(1, _VALUES_AT_ONCE // max(1, self.n_outputs))
        for start in range(0, len(rows), step):
            at = rows[start : start + step]
            true, said, w = batch.labels[at] > 0, batch.predictions[at] > 0, batch.weights[at]
            outcomes = [(true & said), (~true & said), (true & ~said)]
            totals = np.stack([one.sum(axis=1, dtype=np.float64) for one in outcomes])
            self.weight += float(w.sum())
            self.outcomes += np.stack([w @ one for one in outcomes])
            self.products += (totals * w) @ totals.T
            self.exact += float(w @ (totals[1] + totals[2] == 0))

    def update_scores(self, batch: Labelled) -> None:
        """Add only the scores of rows whose predictions were added before."""
        if batch.scores is None or not batch.scores.shape[1]:
            return
        used = _known(batch.labels) & np.isfinite(batch.scores).all(axis=1)
        if not used.any():
            return
        if batch.scores.shape[1] > MAX_SCORED_CLASSES:
            self.too_wide += int(used.sum())
            return
        true, p, w = batch.labels[used] > 0, batch.scores[used].astype(np.float64), batch.weights[used]
        self.scores.add(p, true, batch.score_kind, w)
        if batch.score_kind == SCORE_PROBABILITY:
            proper = self.losses.proper(p, sums=False)
            true, p, w = true[proper], p[proper], w[proper]
            of_label = np.clip(np.where(true, p, 1 - p), batch.epsilon, 1 - batch.epsilon)
            self.losses.add(-np.log(of_label).mean(axis=1), ((p - true) ** 2).mean(axis=1), w)
            width = p.shape[1]
            cells = bins_of(p) + np.arange(width) * BINS
            for row, values in enumerate((np.ones_like(p), p, true)):
                sums = np.bincount(cells.ravel(), np.multiply(values, w[:, None]).ravel(), width * BINS)
                self.calibrations[:width, row] += sums.reshape(width, BINS)

    def merge(self, other: Self) -> None:
        """Add another's rows."""
        self.merge_sums(other)
        self.weight += other.weight
        self.outcomes = self.outcomes + other.outcomes
        self.products = self.products + other.products
        self.exact += other.exact
        self.too_wide += other.too_wide
        self.scores.merge(other.scores)
        self.losses.merge(other.losses)
        self.calibrations = self.calibrations + other.calibrations

    def calibration(self, output: int) -> Calibration:
        """Of one output."""
        found = Calibration()
        found.table = self.calibrations[output]
        return found

    def reliability(self) -> list[list[ReliabilityBin]]:
        """Of each output with scores its bins of probability, against the share of rows that had the output."""
        return [self.calibration(output).bins(self.ratio) for output in range(len(self.calibrations))]

    def figures(self) -> dict[str, Figure]:
        """f1_micro, f1, accuracy, hamming_loss, precision, recall, precision_micro, recall_micro, roc_auc,
        average_precision, log_loss, brier, ece."""
        pairs = self.scores.pairs(min(self.n_outputs, MAX_SCORED_CLASSES))
        of_scores = {**ranked(pairs), **self.losses.figures(), "ece": self._ece()}
        if self.too_wide:
            of_scores = dict.fromkeys(of_scores, Figure(None, _TOO_MANY))
        if self.weight <= 0 or not self.n_outputs:
            return {**dict.fromkeys(_DECIDED, Figure(None, "no labelled predictions")), **of_scores}
        hits, alarms, misses = self.outcomes
        result = {
            "accuracy": Figure(self.exact / self.weight),
            "hamming_loss": Figure(float((alarms + misses).sum()) / self.weight / self.n_outputs),
            "precision": Figure(float(_ratio(hits, hits + alarms).mean())),
            "recall": Figure(float(_ratio(hits, hits + misses).mean())),
            "f1": Figure(float(_ratio(2 * hits, 2 * hits + alarms + misses).mean())),
        }
        sums = self.outcomes.sum(axis=1)
        for name, (top, bottom) in MICRO.items():
            below = float(sums @ bottom)
            said = "no output was ever predicted" if name == "precision_micro" else "no label has any output"
            result[name] = Figure(float(sums @ top) / below) if below > 0 else Figure(None, said)
        return {**{name: result[name] for name in _DECIDED}, **of_scores}

    def intervals(self) -> dict[str, Interval]:
        """The bands of the figures that have a value."""
        pairs = self.scores.pairs(min(self.n_outputs, MAX_SCORED_CLASSES))
        rules = {**ranked_intervals(pairs, self.ratio), **self.losses.intervals(self.ratio)}
        errors = [self.calibration(output) for output in range(len(self.calibrations))]
        if self._ece().value is not None:
            rules["ece"] = together((1.0, one.interval(self.ratio)) for one in errors)
        if self.weight <= 0 or not self.n_outputs:
            return rules
        n = self.weight * self.ratio
        hits, alarms, misses = self.outcomes
        rules["accuracy"] = share(self.exact / self.weight, n)
        wrong = np.array([0.0, 1.0, 1.0]) / self.n_outputs
        lost = float(self.outcomes.sum(axis=1) @ wrong) / self.weight
        of_lost = float(wrong @ self.products @ wrong) / self.weight - lost**2
        rules["hamming_loss"] = share(lost, n, max(0.0, of_lost) / n)
        rules["precision"] = self._macro(hits, hits + alarms)
        rules["recall"] = self._macro(hits, hits + misses)
        # F1 is a share of hits among hits and half of the errors, of as many rows.
        rules["f1"] = self._macro(2 * hits, 2 * hits + alarms + misses)
        sums = self.outcomes.sum(axis=1)
        for name, (top, bottom) in MICRO.items():
            below = float(sums @ bottom)
            if below > 0:
                value = float(sums @ top) / below
                gain = (np.array(top) - value * np.array(bottom)) * self.weight / below
                variance = float(gain @ self.products @ gain) / self.weight / n
                rules[name] = share(value, min(n, below * self.ratio), variance)
        return rules

    def _ece(self) -> Figure:
        if self.losses.reason:
            return Figure(None, self.losses.reason)
        errors = [self.calibration(output).ece(self.ratio).value for output in range(len(self.calibrations))]
        return Figure(float(np.mean([one for one in errors if one is not None])))

    def _macro(self, top: NDArray[np.float64], bottom: NDArray[np.float64]) -> Interval:
        part = 1 / self.n_outputs
        shares, rows = _ratio(top, bottom).tolist(), (bottom * self.ratio).tolist()
        parts = [(part, one, share(one, n)) for one, n in zip(shares, rows, strict=True)]
        return average(parts, dependent=True)


def _known(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    if values.ndim == 1:  # all missing: a row without any of its outputs
        return np.zeros(len(values), bool)
    return np.asarray(np.isfinite(values).all(axis=1))


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 0)
